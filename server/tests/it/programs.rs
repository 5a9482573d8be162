//! Many programs, and programs that do not behave: what one of them does must not be felt by the others.

use std::time::Duration;

use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};
use test_support::{
    TestApp,
    app::{PATIENCE, eventually},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    api::{Program, question, streamed},
    app,
};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_call_under_way_is_completed_and_written_when_its_process_stops() {
    let mut app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let words = "a b c d e f g h i j k l m n o p q r s t";
    let answer = program
        .ask(CHAT, streamed(&format!("{words}[[chunks=20,200ms]]")))
        .await;
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    let mut text = pieces.next().await.unwrap().unwrap().to_vec();
    let rest = async {
        while let Some(piece) = pieces.next().await {
            text.extend_from_slice(&piece.unwrap());
        }
    };
    let ((status, took), ()) = tokio::join!(app.stop(), rest);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let text = String::from_utf8(text).unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    // Written by the process itself, at the moment it ended.
    let line = app.sql_one("SELECT * FROM usage").await;
    assert_eq!(
        (&line["finish"], &line["reported"], &line["error_code"]),
        (&json!("stop"), &json!(true), &Value::Null)
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM api_calls").await, 0);
    app.finish().await;
}

/// A call whose body lacks its last byte.
async fn unfinished(app: &TestApp, key: &str, size: usize) -> TcpStream {
    let addr = app.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; size - 1]).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_of_all_calls_together_have_a_bound_and_room_comes_back() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let ask = async || {
        let answer = program.ask(CHAT, question("hello")).await;
        let (status, again) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
        let body: Value = answer.json().await.unwrap();
        (status, again, body["error"]["code"].clone())
    };
    assert_eq!(ask().await.0, 200);
    let size = 4 * 1024 * 1024;
    let stalled = join_all((0..64).map(|_| unfinished(&app, &program.key, size))).await;
    let (again, code) = eventually(PATIENCE, "there is no room", || async {
        match ask().await {
            (503, again, code) => Ok((again, code)),
            (status, ..) => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!((again.unwrap().to_str().unwrap(), code), ("1", json!("overloaded")));
    drop(stalled);
    eventually(PATIENCE, "there is room again", || async {
        match ask().await.0 {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    app.finish().await;
}

/// The status of a request with these headers besides its own, and whether the connection ends with it.
async fn with_headers(app: &TestApp, key: &str, more: &str) -> (Option<u16>, bool) {
    let addr = app.base.strip_prefix("http://").unwrap();
    let (mut reads, mut writes) = TcpStream::connect(addr).await.unwrap().into_split();
    let head = format!("GET /v1/models HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\n{more}\r\n");
    let sending = tokio::spawn(async move {
        // It may be refused before all of it is sent.
        let _ = writes.write_all(head.as_bytes()).await;
        writes
    });
    let mut answer = Vec::new();
    let mut ended = false;
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") && !ended {
        ended = !matches!(reads.read_buf(&mut answer).await, Ok(1..));
    }
    let status = String::from_utf8_lossy(&answer);
    let status = status.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    // Whoever was refused is not read on.
    if status != Some(200) {
        while matches!(reads.read_buf(&mut answer).await, Ok(1..)) {}
        ended = true;
    }
    drop(sending.await.unwrap());
    (status, ended)
}

#[tokio::test]
async fn a_head_with_too_much_in_it_is_refused_and_its_connection_closed() {
    let app = app().without_bot().start().await;
    let program = Program::new(&app, &["models"]).await;
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let large = |bytes: usize| format!("x-large: {}\r\n", "a".repeat(bytes));
    for (more, expected) in [
        (many(60), (Some(200), false)),
        (many(200), (Some(431), true)),
        (large(100 * 1024), (Some(200), false)),
        (large(500 * 1024), (Some(431), true)),
        (String::new(), (Some(200), false)),
    ] {
        let seen = tokio::time::timeout(PATIENCE, with_headers(&app, &program.key, &more));
        assert_eq!(seen.await.unwrap(), expected, "{} bytes", more.len());
    }
    assert!(!app.logs().contains("panicked at"));
    app.finish().await;
}

#[tokio::test]
async fn a_limit_that_calls_under_way_hold_is_a_rate_and_one_that_is_used_up_a_quota() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let refused = async || {
        let answer = program.ask(CHAT, question("hello")).await;
        assert_eq!(answer.status(), 429);
        let told = [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "retry-after",
            "x-should-retry",
        ]
        .map(|name| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        });
        let body: Value = answer.json().await.unwrap();
        (told, body["error"]["type"].clone(), body["error"]["code"].clone())
    };
    program.limit(&app, &["tokens_total=1000"]).await;
    // Of what it may use at most nothing is left for others.
    let running = program.ask(CHAT, streamed("[[hangmid]] one two three four")).await;
    assert_eq!(running.status(), 200);
    let (told, kind, code) = refused().await;
    assert_eq!(told, ["1000", "0", "1", ""]);
    assert_eq!((kind, code), (json!("tokens"), json!("rate_limit_exceeded")));
    drop(running);
    eventually(PATIENCE, "the call has ended", || async {
        match app.count("SELECT count(*) AS n FROM holds").await {
            0 => Ok(()),
            held => Err(format!("{held} are held")),
        }
    })
    .await;
    program.limit(&app, &["tokens_total=20"]).await;
    let ([limit, remaining, again, retry], kind, code) = refused().await;
    assert_eq!((limit.as_str(), again.as_str(), retry.as_str()), ("20", "", "false"));
    assert!(remaining.parse::<i64>().unwrap() < 20);
    assert_eq!((kind, code), (json!("insufficient_quota"), json!("insufficient_quota")));
    app.finish().await;
}

#[tokio::test]
async fn what_is_turned_away_stands_in_the_log() {
    let app = app().without_bot().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let nobody = json!({"model": "no\u{0}body", "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(program.ask(CHAT, nobody).await.status(), 404);
    assert_eq!(program.ask(CHAT, json!({"messages": []})).await.status(), 400);
    let texts = json!({"model": "fake-model", "input": "hello"});
    assert_eq!(program.ask("/v1/embeddings", texts).await.status(), 403);
    let lines = eventually(PATIENCE, "three lines are written", || async {
        let lines = app
            .sql("SELECT http_status, alias, model, error_code, cost FROM usage ORDER BY http_status")
            .await;
        if lines.len() == 3 {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await;
    let expected = json!([
        {"http_status": 400, "alias": "", "model": "", "error_code": "BD-INPUT", "cost": 0},
        {"http_status": 403, "alias": "", "model": "", "error_code": "BD-FORBIDDEN", "cost": 0},
        {"http_status": 404, "alias": "nobody", "model": "", "error_code": "BD-NO-MODEL", "cost": 0},
    ]);
    assert_eq!(Value::from(lines), expected);
    assert_eq!(app.provider.totals().requests, 0);
    app.finish().await;
}
