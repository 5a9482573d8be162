use std::time::Duration;

use domain::{ApiKeyId, ApiScope, ErrorCode, Lifetime, LimitKind, Money, ReservationId};
use gateway::{ByDetail, Finish, Offer, Outcome, Price, Usage};
use services::{Call, CallWish, Calls, KeyWish, LimitOwner, Services};
use tokio::sync::oneshot;

use crate::app::{App, model};

pub(crate) async fn key(app: &App) -> ApiKeyId {
    let wish = KeyWish {
        name: "program".parse().unwrap(),
        scopes: vec![ApiScope::Chat],
        models: None,
        lifetime: Lifetime::Forever,
    };
    app.api_keys().create(&app.owner().await, wish).await.unwrap().id
}

/// 100 tokens of a prompt and 50 of an answer, at a dollar and two a million: 200,000 nano-dollars.
pub(crate) fn wish(key: ApiKeyId) -> CallWish {
    let model = model();
    CallWish {
        key,
        alias: "smart".to_owned(),
        offer: Offer {
            price: Price::from(&model),
            model: model.into(),
            picture: ByDetail::default(),
        },
        tokens: 100,
        sound: false,
        answer: 50,
        shortens: true,
        speaks: false,
        images: 0,
    }
}

pub(crate) fn outcome(finish: Finish, prompt: i64, completion: i64) -> Outcome {
    Outcome {
        usage: Usage {
            prompt_tokens: prompt,
            completion_tokens: completion,
            ..Usage::default()
        },
        reported: true,
        cost: Money::from_nanos(prompt * 1000 + completion * 2000),
        finish,
        first_token: None,
        total: Duration::from_millis(5),
        tries: Vec::new(),
        provider: "demo".to_owned(),
        model_id: None,
        price: Price::from(&model()),
        failure: None,
        cached: None,
    }
}

/// The task that writes; it ends when the sender is dropped or told to.
pub(crate) fn writer(services: &Services) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let calls = services.calls();
    let task = tokio::spawn(async move {
        calls
            .write(true, async {
                let _ = stopped.await;
            })
            .await;
    });
    (stop, task)
}

/// A call that was admitted.
pub(crate) async fn begun(calls: &Calls, key: ApiKeyId) -> Call {
    let mut call = calls.begin(&wish(key)).unwrap();
    calls.admit(&mut call, &wish(key)).await.unwrap().unwrap();
    call
}

pub(crate) async fn one_call(calls: &Calls, key: ApiKeyId, app: &App) {
    let call = begun(calls, key).await;
    let mut line = call.line(app.now());
    (line.prompt_tokens, line.completion_tokens, line.cost) = (10, 5, 70);
    (line.finish, line.http_status) = ("stop".to_owned(), 200);
    call.end(line);
}

pub(crate) async fn until(app: &App, what: &str, n: i64) {
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
        one_call(&app.calls(), key, &app).await;
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
    let call = begun(&app.calls(), key).await;
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
    let call = begun(&dead.calls(), key).await;
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
            .count("usage WHERE cost = 200000 AND prompt_tokens = 150 AND NOT reported")
            .await,
        1
    );
    // It was only frozen, and now tells what the call has really used: too late.
    let mut line = call.line(app.now());
    line.cost = 70;
    call.end(line);
    one_call(&dead.calls(), key, &app).await;
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
    one_call(&app.calls(), key, &app).await;
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
    let call = begun(&app.calls(), key).await;
    let mut line = call.line(app.now());
    line.cost = -1;
    call.end(line);
    one_call(&app.calls(), key, &app).await;
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
    drop(begun(&app.calls(), key).await);
    let (stop, task) = writer(&app);
    until(&app, "usage WHERE cost = 200000 AND error_code = 'BD-INTERNAL'", 1).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    let other = app.replica(&app.secret);
    let held: Vec<_> = std::iter::from_fn(|| other.calls().begin(&wish(key)))
        .take(20_000)
        .collect();
    assert_eq!(held.len(), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_counts_on_the_limits_of_its_key_by_what_it_used() {
    let app = App::new().await;
    let key = key(&app).await;
    let calls = app.calls();
    let wish = wish(key);
    let admit = async || {
        let mut call = calls.begin(&wish).unwrap();
        let admitted = calls.admit(&mut call, &wish).await.unwrap();
        (call, admitted)
    };
    let stop = Finish::Complete("stop".to_owned());
    let (end, task) = writer(&app);

    // Without a limit nothing is set aside, and nothing has to be settled.
    let (call, admitted) = admit().await;
    assert_eq!(
        admitted.unwrap(),
        services::Reserved {
            call: ReservationId(call.id()),
            answer: 50,
            held: false,
            room: Vec::new()
        }
    );
    calls.finish(call, outcome(stop.clone(), 10, 5), None, 200);

    // The first one holds at once in this process.
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensPerDay, 300)
        .await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::MessagesPerDay, 2)
        .await;
    let (one, admitted) = admit().await;
    let room: Vec<_> = admitted
        .unwrap()
        .room
        .iter()
        .map(|room| (room.kind, room.limit, room.left))
        .collect();
    assert_eq!(
        room,
        [(LimitKind::MessagesPerDay, 2, 1), (LimitKind::TokensPerDay, 300, 150)]
    );
    let (two, admitted) = admit().await;
    assert_eq!(admitted.unwrap().answer, 50);
    let (three, refused) = admit().await;
    assert_eq!(refused.unwrap_err().refusal.code, ErrorCode::LimitKey);
    calls.refuse(three, ErrorCode::LimitKey, 429);

    // One that failed is given back; one that was left in the middle counts as far as it went.
    calls.finish(one, outcome(Finish::Failed, 0, 0), Some(ErrorCode::AiDown), 502);
    calls.finish(two, outcome(Finish::Stopped, 100, 7), None, 499);
    until(&app, "holds", 0).await;
    assert_eq!(app.scope_counter("api_key", "messages").await, (1, 0));
    assert_eq!(app.scope_counter("api_key", "tokens").await, (107, 0));

    // What is left makes the answer shorter, down to what would be of no use.
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensPerDay, 107 + 100 + 50)
        .await;
    let (call, admitted) = admit().await;
    assert_eq!(admitted.unwrap().answer, 50);
    calls.finish(call, outcome(stop, 100, 20), None, 200);

    until(&app, "usage", 5).await;
    end.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(
        app.test
            .count("usage WHERE error_code = 'BD-LIMIT-KEY' AND http_status = 429 AND cost = 0")
            .await,
        1
    );
    assert_eq!(
        app.test
            .count("usage WHERE finish = 'gone' AND prompt_tokens = 100 AND output_price = 2000000000")
            .await,
        1
    );
    assert_eq!(app.test.count("api_calls").await, 0);
}

#[tokio::test]
async fn a_question_that_was_given_up_counts_and_what_is_left_behind_counts_its_pictures() {
    let app = App::new().await;
    let key = key(&app).await;
    for kind in [
        LimitKind::MessagesPerDay,
        LimitKind::TokensPerDay,
        LimitKind::ImagesPerDay,
    ] {
        app.limit_of(LimitOwner::ApiKey(key), kind, 10_000).await;
    }
    let calls = app.calls();
    let wish = CallWish { images: 3, ..wish(key) };
    let admit = async || {
        let mut call = calls.begin(&wish).unwrap();
        calls.admit(&mut call, &wish).await.unwrap().unwrap();
        call
    };
    let call = admit().await;
    let given_up = outcome(Finish::Failed, 100, 0);
    calls.finish(call, given_up, Some(ErrorCode::AiTimeout), 504);
    let (end, task) = writer(&app);
    until(&app, "holds", 0).await;
    assert_eq!(app.scope_counter("api_key", "messages").await, (1, 0));
    assert_eq!(app.scope_counter("api_key", "tokens").await, (100, 0));

    // Two that are in the ledger and were never settled: one painted, one failed.
    let (painted, failed) = (admit().await, admit().await);
    let mut line = painted.line(app.now());
    (line.images, line.finish) = (2, "stop".to_owned());
    painted.end(line);
    let line = failed.line(app.now());
    failed.end(line);
    until(&app, "usage", 3).await;
    end.send(()).unwrap();
    task.await.unwrap();
    app.clock.advance(chrono::TimeDelta::minutes(30));
    app.limits().give_back().await.unwrap();
    assert_eq!(app.scope_counter("api_key", "messages").await, (2, 0));
    assert_eq!(app.scope_counter("api_key", "images").await, (2, 0));
}

#[tokio::test]
async fn a_call_that_outlives_what_was_set_aside_for_it_counts_all_the_same() {
    let app = App::new().await;
    let key = key(&app).await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensTotal, 160).await;
    let calls = app.calls();
    let call = begun(&calls, key).await;
    app.clock.advance(chrono::TimeDelta::minutes(30));
    app.limits().give_back().await.unwrap();
    assert_eq!(app.scope_counter("api_key", "tokens").await, (0, 0));
    // More than the limit, too: it has been used.
    let stop = Finish::Complete("stop".to_owned());
    calls.finish(call, outcome(stop, 100, 90), None, 200);
    let (end, task) = writer(&app);
    until(&app, "usage", 1).await;
    end.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(app.scope_counter("api_key", "tokens").await, (190, 0));
    assert_eq!(app.test.count("holds").await, 0);
}

/// What is set aside is not waited for to reach the disk. The calls go on meanwhile, and one of them with its process.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_crash_of_the_database_took_back_of_reservations_counts_by_what_was_used() {
    let app = App::new().await;
    let key = key(&app).await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensTotal, 10_000)
        .await;
    let dead = app.replica(&app.secret);
    let (_stop, task) = writer(&dead);
    let admit = async |services: &Services| {
        let mut call = services.calls().begin(&wish(key)).unwrap();
        services.calls().admit(&mut call, &wish(key)).await.unwrap().unwrap();
        call
    };
    let (lives, dies) = (admit(&app).await, admit(&dead).await);
    until(&app, "api_calls", 1).await;
    task.abort();
    assert_eq!(app.scope_counter("api_key", "tokens").await, (0, 300));
    app.test
        .run("DELETE FROM holds; UPDATE scope_counters SET reserved = 0")
        .await;

    let stop = Finish::Complete("stop".to_owned());
    app.calls().finish(lives, outcome(stop, 100, 7), None, 200);
    let (end, task) = writer(&app);
    until(&app, "usage", 1).await;
    end.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(app.scope_counter("api_key", "tokens").await, (107, 0));

    app.test
        .run("UPDATE api_replicas SET alive_at = now() - interval '2 minutes'")
        .await;
    assert_eq!(app.calls().charge_lost().await.unwrap(), 1);
    assert_eq!(app.calls().charge_lost().await.unwrap(), 0);
    assert_eq!(app.scope_counter("api_key", "tokens").await, (107 + 150, 0));
    std::mem::forget(dies);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_replica_had_set_aside_is_settled_by_what_its_call_was_charged() {
    let app = App::new().await;
    let key = key(&app).await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensTotal, 1000)
        .await;
    let dead = app.replica(&app.secret);
    let (_stop, task) = writer(&dead);
    let call = begun(&dead.calls(), key).await;
    until(&app, "api_calls", 1).await;
    task.abort();
    app.test
        .run("UPDATE api_replicas SET alive_at = now() - interval '2 minutes'")
        .await;
    assert_eq!(app.calls().charge_lost().await.unwrap(), 1);
    app.limits().give_back().await.unwrap();
    assert_eq!(app.scope_counter("api_key", "tokens").await, (150, 0));
    std::mem::forget(call);
}

#[tokio::test]
async fn sound_is_set_aside_at_its_own_price_and_whole() {
    let app = App::new().await;
    let key = key(&app).await;
    let money = |nanos| app.limit_of(LimitOwner::ApiKey(key), LimitKind::MoneyPerDay, nanos);
    let mut spoken = CallWish {
        speaks: true,
        shortens: false,
        answer: 500,
        ..wish(key)
    };
    spoken.offer.price.audio_output = "12".parse().unwrap();
    // A hundred tokens at a dollar a million, and five hundred at twelve.
    let cost = 100 * 1000 + 500 * 12_000;
    let calls = app.calls();
    money(cost - 1).await;
    let mut call = calls.begin(&spoken).unwrap();
    assert!(
        calls.admit(&mut call, &spoken).await.unwrap().is_err(),
        "nothing shorter can be said"
    );
    // A token more, since prices are rounded up.
    money(cost + 12_000).await;
    let mut call = calls.begin(&spoken).unwrap();
    let reserved = calls.admit(&mut call, &spoken).await.unwrap().unwrap();
    assert_eq!(reserved.answer, 500);
    assert_eq!(app.scope_counter("api_key", "money").await, (0, cost));
}
