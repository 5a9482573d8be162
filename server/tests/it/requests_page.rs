//! The log of calls as a browser without script reads it, and as a file.

use serde_json::json;
use test_support::{
    TestApp,
    app::{PATIENCE, Page, Visitor, eventually},
    fake_telegram::User,
};

use crate::{anna, api::Program, app, boris};

const FILE: &str = "/api/requests.csv";

/// Three calls: of Anna, of Boris, and of somebody who is named like a formula.
async fn three_calls(app: &TestApp) {
    for person in [anna(), boris(), User::new(7003, "=1+1, \"x\"").language("en")] {
        app.say(&person, "Hello");
        app.answer(person.id, "Echo: Hello").await;
    }
    app.idle().await;
}

fn code(page: &Page) -> String {
    page.json()["code"].as_str().unwrap_or_default().to_owned()
}

/// The lines without what says that they are UTF-8.
fn lines(file: &Page) -> Vec<String> {
    assert_eq!(file.status, 200, "{file:?}");
    let text = file.body.strip_prefix('\u{feff}').unwrap();
    text.split_terminator("\r\n").map(str::to_owned).collect()
}

async fn exports(app: &TestApp) -> i64 {
    app.count("SELECT count(*) AS n FROM audit WHERE action = 'requests.export'")
        .await
}

#[tokio::test]
async fn the_log_goes_out_as_the_page_shows_it_and_that_is_recorded() {
    let app = app().start().await;
    three_calls(&app).await;
    let support = app.sign_in("support").await;
    let asked = "outcome=good&columns=who,tokens,trace";
    let page = support.page(&format!("/requests?{asked}")).await.body;
    assert!(
        page.contains("/api/requests.csv?outcome=good&amp;columns=who,tokens,trace"),
        "no link to the file"
    );
    let file = support.page(&format!("{FILE}?{asked}")).await;
    let header = |name: &str| file.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(header("cache-control"), "private, no-store");
    let name = header("content-disposition");
    let day = name
        .strip_prefix("attachment; filename=\"requests-")
        .and_then(|rest| rest.strip_suffix(".csv\""));
    assert!(
        day.is_some_and(|day| day.len() == 10 && day.starts_with("20")),
        "{name}"
    );
    let lines = lines(&file);
    assert_eq!(
        lines[0],
        "\"Time, UTC\",User,API key,Bot,Tokens in,Tokens out,Tokens cached,Trace"
    );
    assert_eq!(lines.len(), 4, "{lines:?}");
    // The newest first; a name is no formula, and the trace is that of the job.
    let job = app
        .sql_one("SELECT replace(job_id::text, '-', '') AS trace FROM usage ORDER BY at DESC LIMIT 1")
        .await;
    let trace = job["trace"].as_str().unwrap();
    assert!(lines[1].contains(",\"'=1+1, \"\"x\"\"\",,"), "{}", lines[1]);
    assert!(lines[1].ends_with(&format!(",{trace}")), "{}", lines[1]);
    assert!(lines[2].contains(",Борис,") && lines[3].contains(",Anna,"), "{lines:?}");

    support.set_cookie("lang", "ru");
    let russian = support.page(&format!("{FILE}?columns=cost,total")).await;
    assert!(
        russian.body.contains("\"Время, UTC\",\"Цена, $\",\"Заняло, мс\"\r\n"),
        "{}",
        russian.body
    );

    let trail = app
        .sql("SELECT after->>'outcome' AS outcome, after->'columns' AS columns FROM audit WHERE action = 'requests.export' ORDER BY id")
        .await;
    assert_eq!(
        trail,
        [
            json!({"outcome": "good", "columns": ["who", "tokens", "trace"]}),
            json!({"outcome": "any", "columns": ["cost", "total"]})
        ]
    );
    app.finish().await;
}

#[tokio::test]
async fn who_may_not_read_the_log_gets_no_file_and_wrong_times_are_refused() {
    let app = app().start().await;
    three_calls(&app).await;
    let viewer = app.sign_in("viewer").await;
    for (visitor, status, refusal) in [(&viewer, 403, "BD-FORBIDDEN"), (&app.visitor(), 401, "BD-SIGNED-OUT")] {
        let refused = visitor.page(FILE).await;
        assert_eq!((refused.status.as_u16(), code(&refused).as_str()), (status, refusal));
        assert!(!refused.body.contains("Anna"));
    }
    let support = app.sign_in("support").await;
    for (asked, expected) in [
        ("from=yesterday", "a time such as 2026-11-24T10:30"),
        ("to=2026-11-31T00:00", "a time such as 2026-11-24T10:30"),
        (
            "from=2026-11-24T10:30&to=2026-11-24T10:30Z",
            "an end that comes after its beginning",
        ),
    ] {
        let refused = support.page(&format!("{FILE}?{asked}")).await;
        assert_eq!(
            (refused.status.as_u16(), code(&refused).as_str()),
            (400, "BD-INPUT"),
            "{asked}"
        );
        assert_eq!(refused.json()["detail"], expected, "{asked}");
        let page = support.page(&format!("/requests?{asked}")).await;
        assert_eq!(page.status, 400, "{asked}");
        assert!(page.body.contains("BD-INPUT"), "{asked}");
    }
    assert_eq!(exports(&app).await, 0, "what was refused is no export");
    app.finish().await;
}

#[tokio::test]
async fn times_and_columns_of_the_address_are_those_of_the_page() {
    let app = app().start().await;
    three_calls(&app).await;
    app.sql_execute(
        "UPDATE usage SET at = at - interval '3 days' WHERE job_id = (SELECT job_id FROM usage ORDER BY at LIMIT 1)",
    )
    .await;
    let support = app.sign_in("support").await;
    let rows = async |visitor: &Visitor, asked: &str| {
        let page = visitor.page(&format!("/requests?{asked}")).await;
        assert_eq!(page.status, 200, "{asked}");
        page.body.matches("class=\"request-link").count()
    };
    assert_eq!(rows(&support, "").await, 3);
    assert_eq!(rows(&support, "past=hour").await, 2);
    assert_eq!(rows(&support, "past=week").await, 3);
    let days_ago = async |days: i32| {
        let at = format!(
            "SELECT to_char(now() AT TIME ZONE 'UTC' - interval '{days} days', 'YYYY-MM-DD\"T\"HH24:MI') AS at"
        );
        app.sql_one(&at).await["at"].as_str().unwrap().to_owned()
    };
    let (four, two) = (days_ago(4).await, days_ago(2).await);
    assert_eq!(rows(&support, &format!("from={four}&to={two}")).await, 1);
    assert_eq!(rows(&support, &format!("from={two}Z")).await, 2);
    // A field for a time, in UTC as long as nobody knows the zone.
    let page = support
        .page(&format!("/requests?from={two}&columns=trace,nonsense"))
        .await
        .body;
    assert!(
        page.contains(&format!("value=\"{two}\"")) && page.contains("From<!>, UTC"),
        "no field"
    );
    assert!(page.contains("data-label=\"Trace\"") && !page.contains("data-label=\"Cost\""));
    // The form keeps them, and so does the choice of columns keep the time.
    assert!(page.contains("name=\"columns\" value=\"trace\""));
    // Once for when the zone is known, and once beside the columns.
    let kept = format!("type=\"hidden\" name=\"from\" value=\"{two}Z\"");
    assert_eq!(page.matches(&kept).count(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_programs_call_is_found_by_the_trace_that_it_names() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = async |traceparent: Option<String>| {
        let body = json!({"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]});
        let mut request = client
            .post(format!("{}/v1/chat/completions", app.base))
            .bearer_auth(&program.key)
            .json(&body);
        if let Some(value) = traceparent {
            request = request.header("traceparent", value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    ask(Some(format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    let own = ask(None).await;
    let broken = ask(Some(format!("00-{trace}-0000000000000000-01"))).await;
    eventually(PATIENCE, "the calls are written", || async {
        match app.count("SELECT count(*) AS n FROM usage").await {
            3 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
    let support = app.sign_in("support").await;
    for (asked, found) in [
        (trace, trace.to_owned()),
        (&own, own.replace('-', "")),
        (&broken, broken.replace('-', "")),
    ] {
        let file = support.page(&format!("{FILE}?columns=trace&code={asked}")).await;
        let lines = lines(&file);
        assert_eq!(lines.len(), 2, "{asked}: {lines:?}");
        assert!(lines[1].ends_with(&found), "{lines:?}");
    }
    let id = app
        .sql_one(&format!("SELECT job_id FROM usage WHERE trace_id = '{trace}'"))
        .await;
    let id = id["job_id"].as_str().unwrap();
    let drawer = support.page(&format!("/requests?open={id}")).await.body;
    assert!(drawer.contains(&format!("/requests?code={trace}")), "{drawer}");
    app.finish().await;
}
