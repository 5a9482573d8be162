//! Answers given again: to whom, for how long, and what they cost.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use test_support::{
    TestApp,
    app::{Visitor, eventually},
    fake_telegram::User,
};

use crate::{
    anna,
    api::{Program, offer_every_kind},
    app, boris,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the form of a bot's card posts.
async fn set(app: &TestApp, staff: &Visitor, sharing: &str, similar: Option<&str>) {
    let bot = app.bot_id().await;
    let form = [
        ("id", bot.as_str()),
        ("sharing", sharing),
        ("kept_for", "3600"),
        ("similar_by", if similar.is_some() { "embed" } else { "" }),
        ("similar_from", similar.unwrap_or("0.95")),
    ];
    let saved = staff.post("/api/fn/bots/cache", &form).await;
    assert_eq!(saved.status, 200, "{saved:?}");
}

/// Asks as the first question of a conversation, and waits for the answer.
async fn ask_anew(app: &TestApp, user: &User, text: &str) -> String {
    let asked = app.say(user, "/new");
    app.reply(user.id, asked).await;
    let asked = app.say(user, text);
    app.reply(user.id, asked).await.text
}

/// How often a model was asked for an answer, and for a comparison.
fn asked(app: &TestApp) -> (usize, usize) {
    let requests = app.provider.requests();
    let compared = requests
        .iter()
        .filter(|request| request.body["input"].is_string())
        .count();
    (requests.len() - compared, compared)
}

/// The lines of answers, oldest first, with where they came from.
async fn caches(app: &TestApp) -> Vec<String> {
    let lines = app
        .sql("SELECT cache FROM usage WHERE user_id IS NOT NULL ORDER BY at")
        .await;
    lines
        .iter()
        .map(|line| line["cache"].as_str().unwrap().to_owned())
        .collect()
}

/// Calls as a program that takes what was given before.
struct Caller {
    client: reqwest::Client,
    key: String,
    base: String,
}

impl Caller {
    fn new(app: &TestApp, key: &str) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            key: key.to_owned(),
            base: app.base.clone(),
        }
    }

    async fn ask(&self, body: &Value, seconds: &str) -> reqwest::Response {
        let path = if body["input"].is_null() {
            "chat/completions"
        } else {
            "embeddings"
        };
        let call = self.client.post(format!("{}/v1/{path}", self.base));
        let call = call.bearer_auth(&self.key).header("x-botdeck-cache", seconds);
        let answer = call.json(body).send().await.unwrap();
        let status = answer.status();
        if status != 200 {
            panic!("{}: {status} {}", self.base, answer.text().await.unwrap());
        }
        answer
    }
}

/// Whether the answer was given before, its type and its bytes.
async fn read(answer: reqwest::Response) -> (Option<String>, String, Vec<u8>) {
    let header = |name: &str| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let (cache, kind) = (header("x-botdeck-cache"), header("content-type").unwrap());
    (cache, kind, answer.bytes().await.unwrap().to_vec())
}

fn question(text: &str, stream: bool) -> Value {
    json!({ "model": "fake-model", "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

#[tokio::test]
async fn nothing_is_given_again_unless_the_bot_is_set_so_and_then_to_the_same_user_only() {
    let app = app().with_limits("tokens_per_day", "100000").start().await;
    let (staff, anna, boris) = (app.sign_in("admin").await, anna(), boris());
    for user in [&anna, &anna, &boris] {
        assert_eq!(ask_anew(&app, user, "why?").await, "Echo: why?");
    }
    assert_eq!(asked(&app), (3, 0));

    set(&app, &staff, "user", None).await;
    eventually(PATIENCE, "an answer is given again", || async {
        ask_anew(&app, &anna, "why?").await;
        match caches(&app).await.last().unwrap().as_str() {
            "exact" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let before = asked(&app);
    ask_anew(&app, &boris, "why?").await;
    assert_eq!(asked(&app).0, before.0 + 1, "another user's answer is not his");
    ask_anew(&app, &boris, "why?").await;
    assert_eq!(asked(&app).0, before.0 + 1);

    // A hit is billed at nothing and holds nothing back.
    let hit = app
        .sql_one("SELECT * FROM usage WHERE cache = 'exact' ORDER BY at LIMIT 1")
        .await;
    assert_eq!(
        (
            &hit["cost"],
            &hit["prompt_tokens"],
            &hit["completion_tokens"],
            &hit["finish"]
        ),
        (&json!(0), &json!(0), &json!(0), &json!("stop"))
    );
    let held = "SELECT coalesce(sum(reserved), 0)::bigint + (SELECT count(*) FROM reservations) AS n FROM counters";
    assert_eq!(app.count(held).await, 0);
    let metrics = app.visitor().get("/metrics").await.body;
    assert!(metrics.contains(r#"botdeck_cache_total{result="exact"}"#), "{metrics}");
    let trail = app
        .sql_one("SELECT before, after FROM audit WHERE action = 'bot.cache'")
        .await;
    assert_eq!(
        (&trail["before"]["cache"], &trail["after"]["cache"]),
        (&json!("off"), &json!("user"))
    );
    app.finish().await;
}

#[tokio::test]
async fn a_bot_that_shares_gives_anybody_the_answer_of_another_on_every_replica() {
    let mut app = app().start().await;
    let (staff, anna, boris) = (app.sign_in("admin").await, anna(), boris());
    set(&app, &staff, "shared", None).await;
    ask_anew(&app, &anna, "who are you?").await;
    // Another process, which knows nothing but what Redis holds.
    app.restart().await;
    app.wait_listening().await;
    assert_eq!(ask_anew(&app, &boris, "who are you?").await, "Echo: who are you?");
    assert_eq!(asked(&app), (1, 0));
    assert_eq!(caches(&app).await, ["", "exact"]);
    // With something said before, it is another question.
    let more = app.say(&boris, "who are you?");
    app.reply(boris.id, more).await;
    assert_eq!(asked(&app), (2, 0));
    app.finish().await;
}

#[tokio::test]
async fn twenty_who_ask_the_same_at_once_are_one_question() {
    let app = app().start().await;
    let staff = app.sign_in("admin").await;
    set(&app, &staff, "shared", None).await;
    let people: Vec<User> = (0..20)
        .map(|n| User::new(8000 + n, "Somebody").language("en"))
        .collect();
    for person in &people {
        app.say(person, "[[delay=1000]] all together?");
    }
    for person in &people {
        app.answer(person.id, "Echo: all together?").await;
    }
    app.idle().await;
    assert_eq!(asked(&app), (1, 0));
    let hits = caches(&app).await.iter().filter(|cache| *cache == "exact").count();
    assert_eq!(hits, 19);

    let caller = Caller::new(&app, &Program::new(&app, &["chat"]).await.key);
    let body = question("[[delay=1000]] and programs?", true);
    let answers = join_all((0..20).map(|_| async { read(caller.ask(&body, "60").await).await })).await;
    assert_eq!(asked(&app), (2, 0));
    let hits = answers
        .iter()
        .filter(|(cache, ..)| cache.as_deref() == Some("exact"))
        .count();
    assert!(hits == 19 && answers.iter().all(|(_, _, bytes)| *bytes == answers[0].2));
    app.finish().await;
}

#[tokio::test]
async fn a_program_that_says_so_is_given_what_its_key_got_byte_by_byte() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat", "embeddings", "models"]).await;
    let caller = Caller::new(&app, &program.key);
    offer_every_kind(&app, &program).await;
    let bodies = [
        question("one two three", true),
        question("one two three", false),
        json!({"model": "embed", "input": "one two"}),
    ];
    let addr = format!("127.0.0.1:{}", test_support::app::free_port());
    let replica = app.spawn_beside(&[("BOTDECK_ADDR", &addr)], &[]);
    replica.wait_line("Botdeck is ready: ", PATIENCE).await.unwrap();
    let other = Caller {
        base: format!("http://{addr}"),
        client: caller.client.clone(),
        key: caller.key.clone(),
    };
    for body in &bodies {
        let first = read(caller.ask(body, "600").await).await;
        assert_eq!(first.0, None, "{body}");
        for place in [&caller, &other] {
            // Telling other replicas is on nobody's way, so it takes a moment.
            let again = eventually(PATIENCE, "it is given again", || async {
                let again = read(place.ask(body, "600").await).await;
                again.0.is_some().then_some(again).ok_or_else(|| body.to_string())
            })
            .await;
            assert_eq!(
                again,
                (Some("exact".to_owned()), first.1.clone(), first.2.clone()),
                "{body}"
            );
        }
    }
    // Whoever does not say so, and another key, ask anew.
    let before = app.provider.requests().len();
    read(caller.ask(&bodies[0], "0").await).await;
    let form = [("name", "stranger"), ("lifetime", "month"), ("scopes[0]", "chat")];
    let made = app.sign_in("admin").await.post("/api/fn/keys/create", &form).await;
    let stranger = Caller::new(&app, made.json()["secret"].as_str().unwrap());
    assert_eq!(read(stranger.ask(&bodies[0], "600").await).await.0, None);
    assert_eq!(app.provider.requests().len(), before + 2);
    // What is cut short is not kept.
    let mut short = question("one two three four", false);
    short["max_tokens"] = json!(2);
    for _ in 0..2 {
        assert_eq!(read(caller.ask(&short, "600").await).await.0, None);
    }
    let line = eventually(PATIENCE, "the hit is written", || async {
        let lines = app
            .sql("SELECT * FROM usage WHERE cache = 'exact' ORDER BY at LIMIT 1")
            .await;
        lines.into_iter().next().ok_or_else(|| "no line".to_owned())
    })
    .await;
    assert_eq!(
        (
            &line["cost"],
            &line["prompt_tokens"],
            &line["http_status"],
            &line["finish"]
        ),
        (&json!(0), &json!(0), &json!(200), &json!("stop"))
    );
    drop(replica);
    app.finish().await;
}

#[tokio::test]
async fn an_answer_is_given_again_for_its_time_also_where_redis_hangs() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let app = app().with("REDIS_URL", &url).start().await;
    let caller = Caller::new(&app, &Program::new(&app, &["chat"]).await.key);
    let (day, moment) = (question("for a day", false), question("for a moment", false));
    read(caller.ask(&day, "86400").await).await;
    let began = std::time::Instant::now();
    assert_eq!(read(caller.ask(&day, "86400").await).await.0.as_deref(), Some("exact"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    read(caller.ask(&moment, "1").await).await;
    let before = app.provider.requests().len();
    eventually(PATIENCE, "it is asked anew", || async {
        read(caller.ask(&moment, "1").await).await;
        if app.provider.requests().len() > before {
            Ok(())
        } else {
            Err("still given again".to_owned())
        }
    })
    .await;
    app.finish().await;
}

/// The fake's vectors differ by the length of a text alone.
const SHORT: &str = "how do I reset it?";
const ALIKE: &str = "how can I reset it?";

fn long() -> String {
    "tell me all about it ".repeat(30).trim().to_owned()
}

#[tokio::test]
async fn a_similar_first_question_gets_the_answer_of_the_other() {
    let app = app().start().await;
    // The machine's own Postgres may have pgvector as well.
    let by = match app
        .count("SELECT count(*) AS n FROM pg_extension WHERE extname = 'vector'")
        .await
    {
        0 => "Questions are compared in process",
        _ => "Questions are compared by pgvector",
    };
    similar_questions(app, by).await;
}

#[tokio::test]
async fn so_it_does_where_the_database_has_pgvector() {
    let given =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: `bin/test bot` sets it"));
    let (postgres, redis) = (given("PGVECTOR_DATABASE_URL"), given("REDIS_URL"));
    let app = app().on_servers(&postgres, &redis).start().await;
    similar_questions(app, "Questions are compared by pgvector").await;
}

async fn similar_questions(mut app: TestApp, by: &str) {
    let (staff, anna, boris) = (app.sign_in("admin").await, anna(), boris());
    offer_every_kind(&app, &Program::new(&app, &["models"]).await).await;
    set(&app, &staff, "shared", Some("0.99")).await;
    assert_eq!(ask_anew(&app, &anna, SHORT).await, format!("Echo: {SHORT}"));
    assert_eq!(asked(&app), (1, 1));
    assert_eq!(ask_anew(&app, &boris, ALIKE).await, format!("Echo: {SHORT}"));
    assert_eq!(
        (asked(&app), caches(&app).await),
        ((1, 2), vec![String::new(), "semantic".to_owned()])
    );
    // Another one is not like it, and a follow-up is not even compared.
    assert_eq!(ask_anew(&app, &boris, &long()).await, format!("Echo: {}", long()));
    let more = app.say(&boris, SHORT);
    assert_eq!(app.reply(boris.id, more).await.text, format!("Echo: {SHORT}"));
    assert_eq!(asked(&app), (3, 3));
    // Comparing has lines of its own, with a price, and is nobody's message.
    let compared = app
        .sql_one("SELECT count(*) AS n, min(cost) AS least, min(alias) AS alias FROM usage WHERE user_id IS NULL")
        .await;
    assert_eq!((&compared["n"], &compared["alias"]), (&json!(3), &json!("embed")));
    assert!(compared["least"].as_i64() > Some(0), "{compared}");
    let counted = app
        .sql_one("SELECT sum(used)::bigint AS n FROM counters WHERE measure = 'messages'")
        .await;
    assert_eq!(counted["n"], 4);

    // Staff see what was near, which is a reading, and what another threshold would do.
    let bot = app.bot_id().await;
    let support = app.sign_in("support").await;
    let page = support.page(&format!("/bots/{bot}/near?from=0.6")).await;
    assert_eq!(page.status, 200);
    for words in [
        SHORT,
        ALIKE,
        "0.600 would take 2 of the 2 listed",
        "In force is 0.990: it takes 1 of the 2 listed",
        by,
    ] {
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    let reading = app
        .sql_one("SELECT actor, target_id, after FROM audit WHERE action = 'conversation.read'")
        .await;
    assert_eq!(
        (&reading["target_id"], &reading["after"]["messages"]),
        (&json!(bot), &json!(2))
    );
    assert_eq!(reading["after"]["users"].as_array().map(Vec::len), Some(2));
    let forbidden = support
        .post(
            "/api/fn/bots/threshold",
            &[("id", bot.as_str()), ("similar_from", "0.8")],
        )
        .await;
    assert_eq!(forbidden.status, 403);

    // Another replica compares with the same rows; after another persona there is nothing to compare with.
    app.restart().await;
    app.wait_listening().await;
    assert_eq!(
        ask_anew(&app, &anna, "how may I reset it?").await,
        format!("Echo: {SHORT}")
    );
    assert_eq!(caches(&app).await.last().unwrap(), "semantic");
    let form = [("id", bot.as_str()), ("persona", "You are terse."), ("model", "")];
    assert_eq!(staff.post("/api/fn/bots/edit", &form).await.status, 200);
    app.restart().await;
    app.wait_listening().await;
    assert_eq!(ask_anew(&app, &anna, ALIKE).await, format!("Echo: {ALIKE}"));
    assert_eq!(caches(&app).await.last().unwrap(), "");
    app.finish().await;
}

#[tokio::test]
async fn users_who_do_not_share_are_not_compared_and_a_model_that_is_slow_holds_nobody_up() {
    let app = app().start().await;
    let (staff, anna, boris) = (app.sign_in("admin").await, anna(), boris());
    offer_every_kind(&app, &Program::new(&app, &["models"]).await).await;
    set(&app, &staff, "user", Some("0.5")).await;
    ask_anew(&app, &anna, SHORT).await;
    assert_eq!(ask_anew(&app, &boris, ALIKE).await, format!("Echo: {ALIKE}"));
    assert_eq!(ask_anew(&app, &boris, SHORT).await, format!("Echo: {ALIKE}"));
    assert_eq!(asked(&app), (2, 3));
    // The deployment's limit is used up for comparing as for all else, and the answer comes without.
    let args = ["limits", "set", "--model", "embed", "tokens_per_day=0"];
    app.cli(&args).await.ok();
    assert_eq!(ask_anew(&app, &anna, ALIKE).await, format!("Echo: {ALIKE}"));
    assert_eq!(asked(&app), (3, 3));
    app.cli(&["limits", "set", "--model", "embed", "tokens_per_day=none"])
        .await
        .ok();
    // A provider that answers late.
    app.provider.delay_embeddings(Duration::from_secs(30));
    let began = std::time::Instant::now();
    assert_eq!(ask_anew(&app, &anna, "is it slow?").await, "Echo: is it slow?");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    app.finish().await;
}
