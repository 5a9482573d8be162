use std::time::Duration;

use domain::{ApiKeyId, ApiScope, Lifetime, Money};
use services::{Calls, KeyWish, Services};
use tokio::sync::oneshot;

use crate::app::App;

async fn key(app: &App) -> ApiKeyId {
    let wish = KeyWish {
        name: "program".parse().unwrap(),
        scopes: vec![ApiScope::Chat],
        models: None,
        lifetime: Lifetime::Forever,
    };
    app.api_keys().create(&app.owner().await, wish).await.unwrap().id
}

/// The task that writes; it ends when the sender is dropped or told to.
fn writer(services: &Services) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let calls = services.calls();
    let task = tokio::spawn(async move {
        calls
            .write(async {
                let _ = stopped.await;
            })
            .await;
    });
    (stop, task)
}

fn one_call(calls: &Calls, key: ApiKeyId, app: &App) {
    let call = calls.begin(key, "smart", 100, Money::from_nanos(1000)).unwrap();
    let mut line = call.line(app.now());
    (line.prompt_tokens, line.completion_tokens, line.cost) = (10, 5, 70);
    (line.finish, line.http_status) = ("stop".to_owned(), 200);
    call.end(line);
}

async fn until(app: &App, what: &str, n: i64) {
    let reached = async {
        while app.test.count(what).await != n {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), reached).await.is_err() {
        panic!("{what}: {} instead of {n}", app.test.count(what).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_calls_are_written_once_and_in_few_statements() {
    let app = App::new().await;
    let key = key(&app).await;
    for _ in 0..1000 {
        one_call(&app.calls(), key, &app);
    }
    let (stop, task) = writer(&app);
    until(&app, "usage", 1000).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(app.test.one::<i64>("SELECT sum(cost)::bigint FROM usage").await, 70_000);
    assert_eq!(app.test.count("api_calls").await, 0);
    // What a call is written by names the transaction.
    let transactions: i64 = app.test.one("SELECT count(DISTINCT xmin::text) FROM usage").await;
    assert!(transactions <= 10, "{transactions} transactions");
    assert_eq!(app.test.count("api_keys WHERE last_used_at IS NOT NULL").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_is_noted_while_it_runs_and_written_at_the_end_of_the_program() {
    let app = App::new().await;
    let key = key(&app).await;
    let (stop, task) = writer(&app);
    let call = app.calls().begin(key, "smart", 100, Money::from_nanos(1000)).unwrap();
    until(&app, "api_calls", 1).await;
    assert_eq!(app.test.count("usage").await, 0);
    let mut line = call.line(app.now());
    line.cost = 70;
    call.end(line);
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(
        app.test.count("usage WHERE cost = 70 AND api_key_id IS NOT NULL").await,
        1
    );
    assert_eq!(app.test.count("api_calls").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_a_replica_that_died_are_charged_once_and_never_twice() {
    let app = App::new().await;
    let key = key(&app).await;
    let dead = app.replica(&app.secret);
    let (_stop, task) = writer(&dead);
    let call = dead.calls().begin(key, "smart", 100, Money::from_nanos(1000)).unwrap();
    until(&app, "api_calls", 1).await;
    assert_eq!(app.calls().charge_lost().await.unwrap(), 0, "it lives");
    app.test
        .run("UPDATE api_replicas SET alive_at = now() - interval '2 minutes'")
        .await;
    let (one, two) = (app.calls(), dead.calls());
    let (one, two) = tokio::join!(one.charge_lost(), two.charge_lost());
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    assert_eq!(
        app.test
            .count("usage WHERE cost = 1000 AND prompt_tokens = 100 AND NOT reported")
            .await,
        1
    );
    // It was only frozen, and now tells what the call has really used: too late.
    let mut line = call.line(app.now());
    line.cost = 70;
    call.end(line);
    one_call(&dead.calls(), key, &app);
    until(&app, "usage WHERE cost = 70", 1).await;
    assert_eq!(app.test.count("usage").await, 2);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_absent_database_loses_no_call() {
    let app = App::new().await;
    let key = key(&app).await;
    let (stop, task) = writer(&app);
    until(&app, "api_replicas", 1).await;
    let mut lock = app.test.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE usage").execute(&mut *lock).await.unwrap();
    one_call(&app.calls(), key, &app);
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while app.test.one::<i64>(terminate).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    lock.rollback().await.unwrap();
    until(&app, "usage", 1).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(app.test.count("usage").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_cannot_be_written_holds_up_no_other() {
    let app = App::new().await;
    let key = key(&app).await;
    let call = app.calls().begin(key, "smart", 100, Money::from_nanos(1000)).unwrap();
    let mut line = call.line(app.now());
    line.cost = -1;
    call.end(line);
    one_call(&app.calls(), key, &app);
    let (stop, task) = writer(&app);
    until(&app, "usage", 1).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(app.test.count("usage WHERE cost = 70").await, 1);
}

#[tokio::test]
async fn a_call_that_nobody_ended_is_charged_by_its_estimate_and_too_many_are_refused() {
    let app = App::new().await;
    let key = key(&app).await;
    drop(app.calls().begin(key, "smart", 100, Money::from_nanos(1000)).unwrap());
    let (stop, task) = writer(&app);
    until(&app, "usage WHERE cost = 1000 AND error_code = 'BD-INTERNAL'", 1).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    let other = app.replica(&app.secret);
    let held: Vec<_> = std::iter::from_fn(|| other.calls().begin(key, "smart", 0, Money::ZERO))
        .take(20_000)
        .collect();
    assert_eq!(held.len(), 10_000);
}
