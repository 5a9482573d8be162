//! Logs for people and for machines: each line is text or JSON, each request and job is told by its id, and no secret is in any of them.

use serde_json::Value;
use test_support::{
    TestApp,
    app::{KEY, MASTER_KEY, PASSWORD, PATIENCE, TOKEN, eventually},
    fake_provider::ProviderFault,
    fake_telegram::Fault,
};

use crate::{anna, app};

/// Every line but the words for whoever started it by hand, which stand apart: indented, between empty lines.
fn lines(app: &TestApp) -> Vec<Value> {
    let logs = app.logs();
    let lines = logs
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("  "));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
        .collect()
}

/// Whether a line was written inside such a span.
fn is_within(line: &Value, name: &str, field: &str, value: &str) -> bool {
    let spans = line["spans"].as_array().into_iter().flatten();
    spans
        .into_iter()
        .any(|span| span["name"] == name && span[field] == value)
}

async fn eventually_within(app: &TestApp, name: &str, field: &str, value: &str) {
    eventually(PATIENCE, &format!("a line of {name} {value}"), || async {
        let lines = lines(app);
        if lines.iter().any(|line| is_within(line, name, field, value)) {
            Ok(())
        } else {
            Err(format!("{} lines", lines.len()))
        }
    })
    .await;
}

/// A message is answered; the id of its job.
async fn worked_off(app: &TestApp) -> String {
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    let job = app.sql_one("SELECT id FROM jobs").await;
    job["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_line_is_json_and_tells_request_or_job() {
    let app = app()
        .with("BOTDECK_LOG_FORMAT", "json")
        .with("BOTDECK_LOG", "debug")
        .start()
        .await;
    let job = worked_off(&app).await;
    eventually_within(&app, "job", "job.id", &job).await;

    let owner = app.sign_in("owner").await;
    for path in ["/healthz", "/users", "/api/fn/users/list", "/no-such-page"] {
        let page = owner.get(path).await;
        let id = page.headers["x-request-id"].to_str().unwrap().to_owned();
        eventually_within(&app, "request", "request.id", &id).await;
        let lines = lines(&app);
        let of_it = lines
            .iter()
            .filter(|line| is_within(line, "request", "request.id", &id));
        for line in of_it {
            assert!(is_within(line, "request", "http.path", path), "{line}");
        }
    }
    for line in lines(&app) {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn for_people_each_line_is_text_with_what_it_is_about() {
    let app = app()
        .with("BOTDECK_LOG_FORMAT", "pretty")
        .with("BOTDECK_LOG", "debug")
        .start()
        .await;
    let job = worked_off(&app).await;
    let told = format!("job.id={job}");
    eventually(PATIENCE, "a line of the job", || async {
        let logs = app.logs();
        let found = logs
            .lines()
            .any(|line| line.contains("DEBUG") && line.contains("job{") && line.contains(&told));
        found.then_some(()).ok_or(logs)
    })
    .await;
    let logs = app.logs();
    assert!(
        logs.lines().all(|line| serde_json::from_str::<Value>(line).is_err()),
        "{logs}"
    );
    // Colours are for terminals only.
    assert!(!logs.contains('\u{1b}'), "{logs}");
    app.finish().await;
}

#[tokio::test]
async fn no_secret_is_logged_even_when_all_is_told_and_much_fails() {
    let mut app = app()
        .with("BOTDECK_LOG_FORMAT", "json")
        .with("BOTDECK_LOG", "trace")
        .with("BOTDECK_METRICS_TOKEN", "let-me-see")
        .start()
        .await;
    let anna = anna();
    // Errors are where addresses and headers like to be quoted.
    app.provider.fail_next(1, ProviderFault::Drop);
    app.provider.fail_next(1, ProviderFault::Status(401));
    app.telegram.fail_next("sendMessage", 1, Fault::DropBeforeHandling);
    app.telegram
        .fail_next("getUpdates", 2, Fault::Status(502, "Bad Gateway".into()));
    let asked = app.say(&anna, "Hello");
    app.reply(anna.id, asked).await;
    let owner = app.sign_in("owner").await;
    let session = owner.cookie("botdeck").unwrap();
    let other = "765432:AAanother-secret_of-another-bot_9876543";
    app.telegram.add_bot(other, "other_deck_bot");
    let added = owner
        .post("/api/fn/bots/add", &[("token", other), ("mode", "polling")])
        .await;
    assert_eq!(added.status, 200, "{added:?}");
    app.telegram
        .wait_for(PATIENCE, |telegram| (telegram.polls_open(other) > 0).then_some(()))
        .await
        .unwrap();
    let _ = app
        .visitor()
        .post(
            "/api/fn/auth/sign-in",
            &[
                ("email", "owner@example.org"),
                ("password", "a wrong pass phrase"),
                ("next", "/"),
            ],
        )
        .await;
    let _ = app.visitor().get("/setup?token=a-one-time-token").await;
    // Words of the start and of the end as well.
    let database = app.db.url.clone();
    app.stop().await;
    let logs = app.logs();
    assert!(logs.contains("\"level\":\"TRACE\""), "not all was told");
    for line in logs.lines() {
        for secret in [
            TOKEN,
            "AAsecret-token",
            other,
            "AAanother-secret",
            KEY,
            MASTER_KEY,
            PASSWORD,
            "a wrong pass phrase",
            "a-one-time-token",
            "let-me-see",
            session.as_str(),
        ] {
            assert!(!line.contains(secret), "{secret} is in the log: {line}");
        }
        assert!(
            !line.contains(&database),
            "the database's address is in the log: {line}"
        );
    }
    app.finish().await;
}
