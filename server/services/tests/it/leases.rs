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
async fn two_busy_processes_admit_no_more_than_there_is_and_all_of_it() {
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
    let replicas = [&*app, &other];
    let all = (0..8).map(|n| until_refused(replicas[n % 2]));
    let (admitted, held): (Vec<i64>, Vec<i64>) = futures::future::join_all(all).await.into_iter().unzip();
    // What one of them had leased when the other was refused is there again.
    until(&app, "holds", 0).await;
    let (rest, _) = until_refused(&other).await;
    until(&app, "holds", 0).await;
    assert_eq!(admitted.iter().sum::<i64>() + rest, LIMIT);
    assert_eq!(app.scope_counter("api_key", "messages").await, (LIMIT, 0));
    let held: i64 = held.iter().sum();
    assert!(held > LIMIT / 4, "{held} of {LIMIT} were set aside ahead");
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
async fn a_limit_that_is_changed_holds_here_at_once_and_elsewhere_soon() {
    let app = App::new().await;
    let other = app.process().await;
    let key = limited(&app, 100_000, 100_000_000).await;
    let calls = [heat(&app, &wish(key)).await, heat(&other, &wish(key)).await];
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::MessagesPerDay, 1)
        .await;
    let changed = Instant::now();
    assert!(ask(&app, &wish(key)).await.is_none());
    while let Some((call, _)) = ask(&other, &wish(key)).await {
        assert!(changed.elapsed() < PATIENCE, "the other replica goes on");
        drop(call);
    }
    drop(calls);
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
