//! Servers that take liberties: each test writes the very bytes of one, over a real socket.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use domain::ErrorCode;
use gateway::{
    Answer, Catalogue, ChatRequest, Deadlines, Finish, Gateway, GatewayError, OpenAi, Role, Turn, models_from,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// Pieces of one answer, written one after the other with a moment between them.
type Pieces = Vec<String>;

/// A server that answers request after request with what it was given, keeping connections alive.
struct Server {
    url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    async fn start(answers: Vec<Pieces>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (bodies, connections) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<usize>>::default());
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let (seen, opened) = (bodies.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                *opened.lock().unwrap() += 1;
                let (seen, answers) = (seen.clone(), answers.clone());
                tokio::spawn(async move {
                    while let Some(body) = read_body(&mut tcp).await {
                        seen.lock().unwrap().push(body);
                        let Some(pieces) = answers.lock().unwrap().next() else {
                            return;
                        };
                        for piece in pieces {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            tcp.write_all(piece.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        Self {
            url,
            bodies,
            connections,
        }
    }

    fn gateway(&self) -> Gateway {
        let deadlines = Deadlines {
            first_token: Duration::from_secs(2),
            between_tokens: Duration::from_secs(2),
            overall: Duration::from_secs(5),
        };
        let provider = OpenAi::new(&self.url, "sk-secret".into()).unwrap();
        let models = models_from(Some("gpt-4o-mini"));
        Gateway::new(Catalogue::from_settings(Arc::new(provider), models), deadlines)
    }
}

async fn read_body(tcp: &mut TcpStream) -> Option<Value> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return serde_json::from_str(body).ok();
            }
        }
        let mut buffer = [0; 4096];
        match tcp.read(&mut buffer).await {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}

fn whole(status: &str, content_type: &str, body: &str) -> Pieces {
    let length = body.len();
    vec![format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )]
}

/// A chunked event stream, one chunk of HTTP for each event, and the end of the body apart from the last one.
fn events(events: &[&str]) -> Pieces {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let chunks = events.iter().map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
    std::iter::once(head)
        .chain(chunks)
        .chain(["0\r\n\r\n".to_owned()])
        .collect()
}

const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

async fn ask(gateway: &Gateway) -> Answer {
    ask_for(gateway, 7).await
}

async fn ask_for(gateway: &Gateway, max_tokens: u32) -> Answer {
    let request = ChatRequest {
        model: "gpt-4o-mini".into(),
        messages: vec![Turn {
            role: Role::User,
            text: "hi".into(),
        }],
        max_tokens,
        user: "u".into(),
    };
    gateway.answer(&request, &CancellationToken::new(), |_| {}).await
}

fn cause(answer: Answer) -> (ErrorCode, String) {
    let failure: GatewayError = answer.failure.unwrap();
    (failure.code(), failure.cause())
}

#[tokio::test]
async fn a_refused_parameter_is_swapped_once_and_for_all() {
    let refusal = json!({"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "param": "max_tokens"}});
    let good = events(&[HELLO, STOP, DONE]);
    let server = Server::start(vec![
        whole("400 Bad Request", "application/json", &refusal.to_string()),
        good.clone(),
        good,
    ])
    .await;
    let gateway = server.gateway();
    let first = ask(&gateway).await;
    assert_eq!((first.text.as_str(), first.attempts), ("Hello", 1));
    assert_eq!(ask(&gateway).await.text, "Hello");
    let bodies = server.bodies.lock().unwrap().clone();
    let sent = |at: usize, name: &str| bodies[at].get(name).and_then(Value::as_u64);
    assert_eq!(
        (sent(0, "max_tokens"), sent(0, "max_completion_tokens")),
        (Some(7), None)
    );
    for at in [1, 2] {
        assert_eq!(
            (sent(at, "max_tokens"), sent(at, "max_completion_tokens")),
            (None, Some(7))
        );
    }
}

#[tokio::test]
async fn a_small_model_is_asked_for_a_small_answer() {
    let vllm = "This model's maximum context length is 2048 tokens. However, you requested 4106 tokens (10 in the messages, 4096 in the completion). Please reduce the length of the messages or completion.";
    let refusal = |message: &str| {
        whole(
            "400 Bad Request",
            "application/json",
            &json!({"error": {"message": message}}).to_string(),
        )
    };
    let good = events(&[HELLO, STOP, DONE]);
    for (words, range) in [
        (vec![vllm], 1900..2048),
        (
            vec!["max_tokens is too large: 4096. This model supports at most 2048 tokens"],
            2048..2049,
        ),
        (
            vec![
                "stream_options must not be set",
                "max_tokens: unknown field, use max_completion_tokens instead",
                "max_completion_tokens is too large",
            ],
            2048..2049,
        ),
    ] {
        let refusals = words.len();
        let answers = words.into_iter().map(refusal).chain([good.clone(), good.clone()]);
        let server = Server::start(answers.collect()).await;
        let gateway = server.gateway();
        let first = ask_for(&gateway, 4096).await;
        assert_eq!((first.text.as_str(), first.attempts), ("Hello", 1));
        assert_eq!(ask_for(&gateway, 4096).await.text, "Hello");
        let bodies = server.bodies.lock().unwrap().clone();
        assert_eq!(bodies.len(), refusals + 2);
        for body in &bodies[refusals..] {
            let limit = body.get("max_tokens").or(body.get("max_completion_tokens"));
            assert!(range.contains(&limit.and_then(Value::as_u64).unwrap()), "{body}");
        }
    }
}

#[tokio::test]
async fn a_type_that_lies_is_not_believed() {
    let stream = [HELLO, STOP, DONE].concat();
    let document = json!({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}});
    let pretty = serde_json::to_string_pretty(&document).unwrap();
    let server = Server::start(vec![
        whole("200 OK", "application/json", &stream),
        whole("200 OK", "text/event-stream", &pretty),
        whole("200 OK", "text/plain", &document.to_string()),
    ])
    .await;
    let gateway = server.gateway();
    for _ in 0..3 {
        let answer = ask(&gateway).await;
        assert_eq!((answer.text.as_str(), answer.usage.prompt_tokens), ("Hello", 3));
        assert_eq!(answer.finish, Finish::Complete("stop".into()));
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::start(vec![events(&[HELLO, STOP, DONE]); 5]).await;
    let gateway = server.gateway();
    for _ in 0..5 {
        assert_eq!(ask(&gateway).await.text, "Hello");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn comments_odd_events_and_bare_ends_are_taken() {
    let server = Server::start(vec![events(&[
        ": OPENROUTER PROCESSING\n\n",
        "event: keepalive\ndata: {}\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\r\n\r\n",
        "data:{\"choices\":[{\"delta\":{\"content\":\"Прив",
        "ет\"}}]}\ndata: {\"choices\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
    ])])
    .await;
    let answer = ask(&server.gateway()).await;
    assert_eq!(
        (answer.text.as_str(), answer.finish),
        ("Привет", Finish::Complete("stop".into()))
    );
    assert!(answer.usage_reported && answer.usage.completion_tokens == 2);
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let body = json!({"choices": [{"message": {"content": "All at once"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 3}});
    let server = Server::start(vec![whole(
        "200 OK",
        "application/json; charset=utf-8",
        &serde_json::to_string_pretty(&body).unwrap(),
    )])
    .await;
    let answer = ask(&server.gateway()).await;
    assert_eq!(
        (answer.text.as_str(), answer.usage.completion_tokens),
        ("All at once", 3)
    );
}

#[tokio::test]
async fn an_error_in_the_stream_has_its_meaning() {
    let busy = "data: {\"error\":{\"message\":\"slow down, sk-secret\",\"code\":429}}\n\n";
    let server = Server::start(vec![events(&[busy]), events(&[busy]), events(&[HELLO, busy])]).await;
    let answer = ask(&server.gateway()).await;
    assert_eq!(answer.attempts, 2);
    let (code, words) = cause(answer);
    assert!(
        code == ErrorCode::AiBusy && words.contains("slow down, [key]"),
        "{words}"
    );
    let answer = ask(&server.gateway()).await;
    assert_eq!((answer.text.as_str(), answer.attempts), ("Hello", 1));
    let (code, words) = cause(answer);
    assert!(code == ErrorCode::AiCut && words.contains("slow down"), "{words}");
}

#[tokio::test]
async fn a_web_page_or_a_redirect_is_no_provider() {
    let redirect = "HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned();
    let page = || whole("200 OK", "text/html", "<html>");
    let server = Server::start(vec![page(), page(), vec![redirect]]).await;
    let gateway = server.gateway();
    let (code, words) = cause(ask(&gateway).await);
    assert!(code == ErrorCode::AiDown && words.contains("base URL"), "{words}");
    let (code, words) = cause(ask(&gateway).await);
    assert!(code == ErrorCode::AiRefused && words.contains("301"), "{words}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_words_nor_keys_get_into_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    // One thread runs everything in this test, async-openai's own task included.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(vec![
        whole("500 Oops", "text/plain", "private words with sk-secret"),
        events(&[HELLO, "data: {\"private words\n\n", STOP, DONE]),
        whole("400 Bad", "text/plain", "private words"),
    ])
    .await;
    let gateway = server.gateway();
    assert_eq!(ask(&gateway).await.attempts, 2);
    assert!(ask(&gateway).await.failure.is_some());
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("asking once more") && log.contains("not JSON"), "{log}");
    for secret in ["private", "sk-secret", "Hello"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
