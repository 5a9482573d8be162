//! Keys in heavy use, whose calls are set aside ahead.

use std::time::{Duration, Instant};

use domain::{ApiKeyId, LimitKind, Period};
use gateway::Finish;
use services::{Call, CallWish, LimitOwner, Services};

use crate::{
    app::App,
    calls::{key, outcome, until, wish, writer},
};

/// Nothing here takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn limited(app: &App, messages: i64, tokens: i64) -> ApiKeyId {
    let key = key(app).await;
    for (kind, amount) in [(LimitKind::MessagesPerDay, messages), (LimitKind::TokensPerDay, tokens)] {
        app.limit_of(LimitOwner::ApiKey(key), kind, amount).await;
    }
    key
}

/// The call, and whether it was held before it came; `None` when it was refused.
async fn ask(services: &Services, wish: &CallWish) -> Option<(Call, bool)> {
    let mut call = services.calls().begin(wish).unwrap();
    let came_with = call.id();
    let admitted = services.calls().admit(&mut call, wish).await.unwrap();
    admitted.is_ok().then(|| {
        let was_held = call.id() != came_with;
        (call, was_held)
    })
}

/// Asks until a call was held before it came. All of them are under way then.
async fn heat(services: &Services, wish: &CallWish) -> Vec<Call> {
    let began = Instant::now();
    let mut calls = Vec::new();
    while began.elapsed() < PATIENCE {
        let (call, was_held) = ask(services, wish).await.unwrap();
        calls.push(call);
        if was_held {
            return calls;
        }
    }
    panic!("no call was set aside ahead among {}", calls.len());
}

fn finish(services: &Services, call: Call) {
    let complete = Finish::Complete("stop".to_owned());
    services.calls().finish(call, outcome(complete, 100, 50), None, 200);
}

#[tokio::test]
async fn what_does_not_come_is_given_back_and_what_came_is_counted_once() {
    let app = App::new().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let calls = heat(&app, &wish(key)).await;
    let made = i64::try_from(calls.len()).unwrap();
    assert!(
        app.test.count("holds").await > made,
        "more is set aside than was asked for"
    );
    let (stop, task) = writer(&app);
    for call in calls {
        finish(&app, call);
    }
    until(&app, "holds", 0).await;
    assert_eq!(app.scope_counter("api_key", "messages").await, (made, 0));
    assert_eq!(app.scope_counter("api_key", "tokens").await, (made * 150, 0));
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_replica_that_stops_gives_back_what_it_holds() {
    let app = App::new().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let calls = heat(&app, &wish(key)).await;
    for call in calls {
        finish(&app, call);
    }
    let (stop, task) = writer(&app);
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(app.test.count("holds").await, 0);
}

#[tokio::test]
async fn a_longer_call_than_was_foreseen_is_asked_for() {
    let app = App::new().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let calls = heat(&app, &wish(key)).await;
    let longer = CallWish {
        tokens: 5000,
        ..wish(key)
    };
    let (call, was_held) = ask(&app, &longer).await.unwrap();
    assert!(!was_held);
    let own = format!(
        "SELECT sum(amount)::bigint FROM holds, unnest(measures, amounts) AS s (measure, amount)
         WHERE measure = 'tokens' AND call_id = '{}'",
        call.id()
    );
    assert_eq!(app.test.one::<i64>(&own).await, 5050);
    drop(calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_busy_processes_admit_all_there_is_and_no_more() {
    const LIMIT: i64 = 4000;
    let app = App::new().await;
    let other = app.process().await;
    let key = limited(&app, LIMIT, 100_000_000).await;
    let wish = wish(key);
    let writers = [writer(&app), writer(&other)];
    let until_refused = async |services: &Services| {
        let (mut admitted, mut held) = (0, 0);
        while let Some((call, was_held)) = ask(services, &wish).await {
            admitted += 1;
            held += i64::from(was_held);
            finish(services, call);
        }
        (admitted, held)
    };
    let (here, there) = tokio::join!(until_refused(&app), until_refused(&other));
    assert_eq!(here.0 + there.0, LIMIT);
    assert!(here.1 + there.1 > 0, "nothing was set aside ahead");
    until(&app, "holds", 0).await;
    assert_eq!(app.scope_counter("api_key", "messages").await, (LIMIT, 0));
    for (stop, task) in writers {
        stop.send(()).unwrap();
        task.await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_refused_what_lies_unused() {
    const TOKENS: i64 = 10_000_000;
    let app = App::new().await;
    let key = limited(&app, 100_000, TOKENS).await;
    let calls = heat(&app, &wish(key)).await;
    let ids: Vec<String> = calls.iter().map(|call| format!("'{}'", call.id())).collect();
    let under_way = format!(
        "SELECT sum(amount)::bigint FROM holds, unnest(measures, amounts) AS s (measure, amount)
         WHERE measure = 'tokens' AND call_id IN ({})",
        ids.join(", ")
    );
    let taken: i64 = app.test.one(&under_way).await;
    let all_the_rest = CallWish {
        tokens: TOKENS - taken - 50,
        shortens: false,
        ..wish(key)
    };
    assert!(ask(&app, &all_the_rest).await.is_some());
    assert_eq!(app.scope_counter("api_key", "tokens").await, (0, TOKENS));
    assert!(ask(&app, &wish(key)).await.is_none());
}

#[tokio::test]
async fn a_bot_is_not_refused_what_a_program_does_not_use() {
    const TOKENS: i64 = 10_000_000;
    let app = App::new().await;
    let key = key(&app).await;
    let deployment = LimitOwner::Deployment;
    app.limit_of(deployment.clone(), LimitKind::TokensPerDay, TOKENS).await;
    let calls = heat(&app, &wish(key)).await;
    let (_, taken) = app.scope_counter("deployment", "tokens").await;
    let almost_all = CallWish {
        tokens: TOKENS - taken - 60,
        shortens: false,
        ..wish(key)
    };
    // Ten tokens are left, and what nobody uses.
    let big = ask(&app, &almost_all).await.unwrap();
    let (job, incoming) = app.job(7, 7, "hello").await;
    app.ask(&job, &incoming).await;
    drop((calls, big));
}

/// What is told of changes.
fn watch(services: &Services) -> tokio::task::JoinHandle<()> {
    let limits = services.limits();
    tokio::spawn(async move { limits.watch(std::future::pending()).await })
}

#[tokio::test]
async fn a_changed_limit_holds_on_all_replicas_from_the_next_call_on() {
    let app = App::new().await;
    let other = app.process().await;
    let watches = watch(&other);
    let key = key(&app).await;
    // Both believe that nothing bounds the key, for two seconds; then both hold calls ahead.
    for limit in [100_000, 1] {
        for services in [&*app, &other] {
            if limit == 1 {
                heat(services, &wish(key)).await;
            } else {
                ask(services, &wish(key)).await.unwrap();
            }
        }
        app.limit_of(LimitOwner::ApiKey(key), LimitKind::MessagesPerDay, limit)
            .await;
        let changed = Instant::now();
        if limit == 1 {
            assert!(ask(&app, &wish(key)).await.is_none());
            while ask(&other, &wish(key)).await.is_some() {}
        } else {
            let before = app.test.count("holds").await;
            while app.test.count("holds").await == before {
                ask(&other, &wish(key)).await.unwrap();
            }
        }
        assert!(
            changed.elapsed() < Duration::from_millis(1500),
            "{:?}",
            changed.elapsed()
        );
    }
    watches.abort();
}

#[tokio::test]
async fn what_a_replica_held_that_went_away_is_there_again() {
    let app = App::new().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let dead = app.process().await;
    let calls = heat(&dead, &wish(key)).await;
    let made = i64::try_from(calls.len()).unwrap();
    // What was begun is noted before it dies.
    let (_stop, task) = writer(&dead);
    until(&app, "api_calls", made).await;
    task.abort();
    assert!(app.test.count("holds").await > made);
    app.test
        .run("UPDATE api_replicas SET alive_at = now() - interval '2 minutes'")
        .await;
    app.calls().charge_lost().await.unwrap();
    app.limits().give_back().await.unwrap();
    assert_eq!(app.test.count("holds").await, 0);
    assert_eq!(app.scope_counter("api_key", "messages").await, (made, 0));
    calls.into_iter().for_each(std::mem::forget);
}

#[tokio::test]
async fn what_could_not_be_given_back_while_the_database_was_away_is_given_back_then() {
    let app = App::new().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let calls = heat(&app, &wish(key)).await;
    app.test
        .run(
            "CREATE FUNCTION stops() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RAISE EXCEPTION 'the database system is shutting down' USING ERRCODE = '57P03'; END $$;
             CREATE TRIGGER stops BEFORE DELETE ON holds FOR EACH STATEMENT EXECUTE FUNCTION stops()",
        )
        .await;
    let made = i64::try_from(calls.len()).unwrap();
    let (stop, task) = writer(&app);
    for call in calls {
        finish(&app, call);
    }
    until(&app, "usage", made).await;
    assert!(app.test.count("holds").await > made);
    app.test.run("DROP TRIGGER stops ON holds").await;
    until(&app, "holds", 0).await;
    assert_eq!(app.scope_counter("api_key", "messages").await, (made, 0));
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_call_counts_in_the_window_in_which_it_comes() {
    let app = App::new().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let calls = heat(&app, &wish(key)).await;
    let midnight = Period::Day.reset(app.now());
    app.clock.advance(midnight - app.now());
    let (call, _) = ask(&app, &wish(key)).await.unwrap();
    let begins = format!("SELECT starts[1] FROM holds WHERE call_id = '{}'", call.id());
    assert_eq!(app.test.one::<chrono::DateTime<chrono::Utc>>(&begins).await, midnight);
    drop(calls);
}
