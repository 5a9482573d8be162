//! Budgets that nobody overshoots, however many messages come at once and however many processes answer them.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use test_support::{TestApp, app::TOKEN, fake_telegram::User};

use crate::{anna, api::Program, app, boris};

/// All that the bot has said to a person, by whether it is a refusal with this code.
fn split(app: &TestApp, chats: &[i64], code: &str) -> (Vec<String>, Vec<String>) {
    let said = chats.iter().flat_map(|chat| app.said_by_bot(*chat));
    said.partition(|text| !text.contains(code))
}

async fn assert_settled(app: &TestApp) {
    let reserved = app.sql("SELECT * FROM counters WHERE reserved <> 0").await;
    assert!(reserved.is_empty(), "{reserved:?}");
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
}

#[tokio::test]
async fn of_fifty_messages_at_once_exactly_ten_are_answered() {
    let app = app().with_limits("messages_per_day", "10").start().await;
    let anna = anna();
    for number in 0..50 {
        app.say(&anna, &format!("message {number}"));
    }
    app.answer_with(anna.id, "BD-LIMIT-DAY").await;
    app.idle_within(Duration::from_secs(60)).await;
    let (answers, refusals) = split(&app, &[anna.id], "BD-LIMIT-DAY");
    let expected: Vec<String> = (0..10).map(|number| format!("Echo: message {number}")).collect();
    assert_eq!(answers, expected);
    assert_eq!(refusals.len(), 40);
    let tomorrow = (time() + chrono::TimeDelta::days(1))
        .format("%Y-%m-%d 00:00 UTC")
        .to_string();
    for refusal in refusals {
        assert!(refusal.contains("Your 10 messages of today are used up."), "{refusal}");
        assert!(refusal.contains(&tomorrow), "{refusal}");
    }
    assert_eq!(app.provider.totals().requests, 10);
    assert_eq!(
        app.count("SELECT used AS n FROM counters WHERE measure = 'messages'")
            .await,
        10
    );
    assert_eq!(
        app.count("SELECT count(*) AS n FROM errors WHERE code = 'BD-LIMIT-DAY'")
            .await,
        40
    );
    assert_settled(&app).await;
    // Another person has a day of their own, and is told in their language.
    let boris = boris();
    app.say(&boris, "привет");
    app.answer(boris.id, "Echo: привет").await;
    app.finish().await;
}

fn time() -> chrono::DateTime<chrono::Utc> {
    std::time::SystemTime::now().into()
}

/// The same person writes in ten groups at once, so that nothing puts the messages in a row, and two processes answer.
#[tokio::test]
async fn two_processes_share_one_budget() {
    // Few hands, so that neither can take everything before the other looks.
    let app = app()
        .with("BOTDECK_WORKERS", "2")
        .with_limits("messages_per_day", "10")
        .start()
        .await;
    let replica = app.replica(&[], &["--roles", "worker"]).await;
    let chats: Vec<i64> = (1..=10).map(|group| -1000 - group).collect();
    for number in 0..5 {
        for chat in &chats {
            let update = json!({"message": {"message_id": 10 + number, "date": 1_795_378_000,
                "text": format!("@deck_bot message {number} [[delay=100]]"),
                "chat": {"id": chat, "type": "supergroup", "title": "A group"},
                "from": {"id": 7001, "is_bot": false, "first_name": "Anna"}}});
            app.telegram.push_update(TOKEN, update);
        }
    }
    app.answer_with(chats[0], "message").await;
    app.idle_within(Duration::from_secs(60)).await;
    let (answers, refusals) = split(&app, &chats, "BD-LIMIT-DAY");
    assert_eq!((answers.len(), refusals.len()), (10, 40), "{answers:?}");
    assert_eq!(app.provider.totals().requests, 10);
    assert_settled(&app).await;
    let workers = app.sql("SELECT worker, count(*) AS n FROM jobs GROUP BY worker").await;
    assert_eq!(workers.len(), 2, "one process did everything: {workers:?}");
    assert!(!replica.logs().contains("panicked at"));
    app.finish().await;
}

/// Two hundred calls of one key at once, half of them to each of two processes.
#[tokio::test]
async fn two_processes_share_the_budget_of_a_program() {
    let app = app().without_bot().start().await;
    let program = Program::new(&app, &["chat"]).await;
    program.limit(&app, &["messages_per_day=10"]).await;
    let replica = app.replica(&[], &[]).await;
    let said = replica.logs();
    let ready = said.split("Botdeck is ready: ").nth(1).unwrap();
    let other = program.at(ready.split_whitespace().next().unwrap());
    let calls = (0..200).map(|number| {
        let question = format!("question {number} [[delay=100]]");
        let body = json!({"model": "fake-model", "messages": [{"role": "user", "content": question}]});
        let program = if number % 2 == 0 { &program } else { &other };
        program.ask("/v1/chat/completions", body)
    });
    let statuses: Vec<u16> = join_all(calls)
        .await
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    let count = |status: u16| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(200), count(429)), (10, 190), "{statuses:?}");
    assert_eq!(app.provider.totals().requests, 10);
    app.finish().await;
}

/// Where the provider takes three requests at once, it takes three of two processes together, and both get theirs.
#[tokio::test]
async fn two_processes_share_the_places_of_a_provider() {
    let app = app().without_bot().with("BOTDECK_PROVIDER_CALLS", "3").start().await;
    let program = Program::new(&app, &["chat"]).await;
    let replica = app.replica(&[], &[]).await;
    let said = replica.logs();
    let ready = said.split("Botdeck is ready: ").nth(1).unwrap();
    let other = program.at(ready.split_whitespace().next().unwrap());
    let ask = async |program: &Program, number: usize| {
        let question = format!("question {number} [[delay=100]]");
        let body = json!({"model": "fake-model", "stream": number.is_multiple_of(3),
            "messages": [{"role": "user", "content": question}]});
        let answer = program.ask("/v1/chat/completions", body).await;
        let status = answer.status().as_u16();
        let _ = answer.bytes().await.unwrap();
        (status, Instant::now())
    };
    let began = Instant::now();
    // One is busy before the other one comes.
    let first = join_all((0..45).map(|number| ask(&program, number)));
    let second = async {
        let busy = app.provider.wait_for(Duration::from_secs(20), |fake| {
            (fake.totals().requests >= 3).then_some(())
        });
        busy.await.unwrap();
        join_all((45..51).map(|number| ask(&other, number))).await
    };
    let (first, second) = futures::future::join(first, second).await;
    assert!(
        first.iter().chain(&second).all(|(status, _)| *status == 200),
        "{first:?} {second:?}"
    );
    // Unless the machine is so busy that Redis was given up for a while: then each takes its share.
    let missed = [app.logs(), replica.logs()].concat().contains("Redis is not reached");
    assert!(
        missed || app.provider.most_at_once() == 3,
        "{} at once",
        app.provider.most_at_once()
    );
    // Whoever comes later does not wait until the others are through.
    let ended = |all: &[(u16, Instant)]| all.iter().map(|(_, at)| *at - began).max().unwrap();
    assert!(
        ended(&second) < ended(&first),
        "{:?} {:?}",
        ended(&second),
        ended(&first)
    );
    app.finish().await;
}

#[tokio::test]
async fn messages_per_minute_are_limited() {
    let app = app().with_limits("messages_per_minute", "5").start().await;
    let anna = anna();
    for number in 0..12 {
        app.say(&anna, &format!("message {number}"));
    }
    app.answer_with(anna.id, "BD-LIMIT-MINUTE").await;
    app.idle().await;
    let (answers, refusals) = split(&app, &[anna.id], "BD-LIMIT-MINUTE");
    assert_eq!((answers.len(), refusals.len()), (5, 7), "{answers:?}");
    for refusal in refusals {
        assert!(refusal.contains("your plan allows 5 messages a minute"), "{refusal}");
        assert!(
            refusal.contains("You can go on in ") && refusal.contains(" UTC"),
            "{refusal}"
        );
    }
    assert_eq!(app.provider.totals().requests, 5);
    // Commands are free.
    let asked = app.say(&anna, "/help");
    assert!(app.reply(anna.id, asked).await.text.contains("What I can do"));
    app.finish().await;
}

/// To the second: a minute after the oldest of the messages that used it up.
#[tokio::test]
async fn a_minute_that_is_used_up_says_exactly_when_it_goes_on() {
    let app = app().with_limits("messages_per_minute", "2").start().await;
    let anna = anna();
    for number in 0..3 {
        let asked = app.say(&anna, &format!("message {number}"));
        app.reply(anna.id, asked).await;
    }
    let asked = app.say(&anna, "/usage");
    let usage = app.reply(anna.id, asked).await.text;
    let again = app
        .sql(
            "SELECT to_char(date_trunc('second', date_trunc('milliseconds', min(received_at)) + interval '60.999999 seconds')
                            AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS at FROM updates",
        )
        .await;
    let again = again[0]["at"].as_str().unwrap();
    let refusal = app.answer_with(anna.id, "BD-LIMIT-MINUTE").await.text;
    assert!(refusal.contains("your plan allows 2 messages a minute"), "{refusal}");
    assert!(refusal.contains(&format!("({again} UTC)")), "{again}: {refusal}");
    let line = format!("Messages this minute: 2 of 2, starts again {again} UTC");
    assert!(usage.contains(&line), "{line}: {usage}");
    app.finish().await;
}

/// As a deployment starts: twenty a minute. The day is what is over, and that is what is said, whatever the pace.
#[tokio::test]
async fn a_day_that_is_over_is_told_before_a_minute() {
    let app = app()
        .with_limits("messages_per_minute", "20")
        .with_limits("messages_per_day", "10")
        .start()
        .await;
    let anna = anna();
    for number in 0..50 {
        app.say(&anna, &format!("message {number}"));
    }
    app.answer_with(anna.id, "BD-LIMIT-DAY").await;
    app.idle_within(Duration::from_secs(60)).await;
    let (answers, refusals) = split(&app, &[anna.id], "BD-LIMIT-DAY");
    assert_eq!((answers.len(), refusals.len()), (10, 40), "{answers:?}");
    assert_eq!(app.provider.totals().requests, 10);
    assert_settled(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn tokens_of_the_day_are_never_overshot() {
    let app = app().with_limits("tokens_per_day", "600").start().await;
    let anna = anna();
    for number in 0..20 {
        app.say(&anna, &format!("message {number} [[tokens=60]]"));
    }
    let refusal = app.answer_with(anna.id, "BD-LIMIT-TOKENS").await.text;
    assert!(
        refusal.contains("600 tokens of today") && refusal.contains("00:00 UTC"),
        "{refusal}"
    );
    app.idle().await;
    let used = app
        .count("SELECT used AS n FROM counters WHERE measure = 'tokens'")
        .await;
    let totals = app.provider.totals();
    assert_eq!(
        used,
        i64::try_from(totals.prompt_tokens + totals.completion_tokens).unwrap()
    );
    assert!(used <= 600 && used > 200, "{used} of 600 tokens");
    assert_settled(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn money_of_the_month_is_never_overshot() {
    // A tenth of a cent a prompt token's ten: 100 and 200 dollars a million.
    let app = app()
        .with("OPENAI_MODEL", "fake-model@100/200")
        .with_limits("money_per_month", "0.10")
        .start()
        .await;
    let anna = anna();
    for number in 0..20 {
        app.say(&anna, &format!("message {number} [[tokens=60]]"));
    }
    let refusal = app.answer_with(anna.id, "BD-LIMIT-MONEY").await.text;
    let next_month = chrono::Datelike::with_day(&time().date_naive(), 1).unwrap() + chrono::Months::new(1);
    assert!(
        refusal.contains("$0.10") && refusal.contains(&format!("{next_month} 00:00 UTC")),
        "{refusal}"
    );
    app.idle().await;
    let used = app
        .count("SELECT used AS n FROM counters WHERE measure = 'money'")
        .await;
    let billed = app.count("SELECT sum(cost)::bigint AS n FROM usage").await;
    let totals = app.provider.totals();
    let exact = i64::try_from(totals.prompt_tokens * 100_000 + totals.completion_tokens * 200_000).unwrap();
    assert_eq!((used, billed), (exact, exact));
    assert!(
        used <= 100_000_000 && used > 20_000_000,
        "{used} of 100000000 nano-dollars"
    );
    assert_settled(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn zero_lets_nothing_through() {
    let app = app().with_limits("messages_per_day", "0").start().await;
    let anna = anna();
    let asked = app.say(&anna, "Hello");
    assert_eq!(
        app.reply(anna.id, asked).await.text,
        "Your plan allows no messages.\nBD-LIMIT-DAY"
    );
    assert_eq!(app.provider.totals().requests, 0);
    app.finish().await;
}

#[tokio::test]
async fn a_changed_limit_holds_from_the_next_message_on() {
    let app = app().with_limits("messages_per_day", "1").start().await;
    let anna = anna();
    for (text, words) in [("one", "Echo: one"), ("two", "BD-LIMIT-DAY")] {
        let asked = app.say(&anna, text);
        assert!(app.reply(anna.id, asked).await.text.contains(words));
    }
    app.cli(&["limits", "set", "free", "messages_per_day=none"]).await.ok();
    app.say(&anna, "three");
    app.answer(anna.id, "Echo: three").await;
    app.finish().await;
}

#[tokio::test]
async fn without_redis_answers_still_come_and_limits_are_stricter() {
    let app = app()
        .with("REDIS_URL", "redis://127.0.0.1:1")
        .with_limits("messages_per_minute", "6")
        .start()
        .await;
    let people: Vec<User> = vec![anna(), boris()];
    for person in &people {
        let asked = Instant::now();
        app.say(person, "Hello");
        app.answer(person.id, "Echo: Hello").await;
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
    for number in 0..5 {
        app.say(&people[0], &format!("message {number}"));
    }
    app.answer_with(people[0].id, "BD-LIMIT-MINUTE").await;
    app.idle().await;
    assert_eq!(
        app.provider.totals().requests,
        4,
        "half of six, and one of the other person's"
    );
    let ready = app.visitor().get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["redis"]), (200, &json!(false)));
    app.finish().await;
}
