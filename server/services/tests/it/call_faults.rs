//! Calls of programs where something is wrong: with the database, with a line, with their keys, with their limits.

use std::time::Duration;

use chrono::TimeDelta;
use domain::{ApiKeyId, ErrorCode, LimitKind};
use gateway::Finish;
use services::{Calls, LimitOwner, Refused};

use crate::{
    app::App,
    calls::{begun, key, one_call, outcome, until, wish, writer},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Lets the first so many attempts to write a line fail in this way.
async fn refuse_lines(app: &App, attempts: u32, sqlstate: &str) {
    app.test
        .run(&format!(
            "CREATE SEQUENCE attempts;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('attempts') <= {attempts} THEN
                     RAISE EXCEPTION 'refused' USING ERRCODE = '{sqlstate}';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON usage FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await;
}

/// A deadlock, a full disk, a standby that takes over, a column that a release before does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_line_is_lost_by_what_passes() {
    for sqlstate in ["40P01", "53100", "25006", "42703"] {
        let app = App::new().await;
        let key = key(&app).await;
        refuse_lines(&app, 2, sqlstate).await;
        one_call(&app.calls(), key, &app).await;
        let (stop, task) = writer(&app);
        until(&app, "usage WHERE cost = 70", 1).await;
        stop.send(()).unwrap();
        task.await.unwrap();
        assert_eq!(
            app.test.one::<i64>("SELECT last_value FROM attempts").await,
            3,
            "{sqlstate}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_line_that_cannot_be_written_is_found_in_few_steps() {
    let app = App::new().await;
    let key = key(&app).await;
    for number in 0..512 {
        if number == 300 {
            let call = begun(&app.calls(), key).await;
            let mut line = call.line(app.now());
            line.cost = -1;
            call.end(line);
        } else {
            one_call(&app.calls(), key, &app).await;
        }
    }
    let (stop, task) = writer(&app);
    until(&app, "usage", 511).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    let transactions: i64 = app.test.one("SELECT count(DISTINCT xmin::text) FROM usage").await;
    assert!(transactions <= 24, "{transactions} transactions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_a_key_that_is_gone_are_written_without_it() {
    let app = App::new().await;
    let (gone, stays) = (key(&app).await, other_key(&app).await);
    one_call(&app.calls(), gone, &app).await;
    let running = begun(&app.calls(), gone).await;
    one_call(&app.calls(), stays, &app).await;
    app.test.run(&format!("DELETE FROM api_keys WHERE id = '{gone}'")).await;
    let (stop, task) = writer(&app);
    until(&app, "usage WHERE cost = 70 AND api_key_id IS NULL", 1).await;
    until(&app, "usage WHERE cost = 70 AND api_key_id IS NOT NULL", 1).await;
    let mut line = running.line(app.now());
    line.cost = 7;
    running.end(line);
    until(&app, "usage WHERE cost = 7 AND api_key_id IS NULL", 1).await;
    stop.send(()).unwrap();
    task.await.unwrap();
}

async fn other_key(app: &App) -> ApiKeyId {
    let id: uuid::Uuid = app
        .test
        .one(
            "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by)
             VALUES (gen_random_uuid(), 'other', 'bd-123456', sha256('x'), '{chat}', now(), 'test') RETURNING id",
        )
        .await;
    ApiKeyId(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_month_that_was_not_made_is_made_for_the_line() {
    let app = App::new().await;
    let key = key(&app).await;
    // Months are made ahead; the first table holds this one and the next.
    app.clock.advance(TimeDelta::days(62));
    let month = app.now().format("usage_%Y_%m");
    app.test.run(&format!("DROP TABLE {month}")).await;
    for _ in 0..3 {
        one_call(&app.calls(), key, &app).await;
    }
    let (stop, task) = writer(&app);
    until(&app, "usage", 3).await;
    stop.send(()).unwrap();
    task.await.unwrap();
}

/// Admits and ends nothing: why not?
async fn refused(calls: &Calls, key: ApiKeyId) -> Refused {
    let mut call = calls.begin(&wish(key)).unwrap();
    let refused = calls.admit(&mut call, &wish(key)).await.unwrap().unwrap_err();
    calls.refuse(call, refused.refusal.code, 429);
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_begins_when_it_is_admitted_and_a_key_in_a_loop_leaves_some_lines() {
    let app = App::new().await;
    let key = key(&app).await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensTotal, 100).await;
    let (stop, task) = writer(&app);
    for _ in 0..100 {
        assert_eq!(refused(&app.calls(), key).await.refusal.code, ErrorCode::LimitKey);
    }
    drop(app.calls().begin(&wish(key)).unwrap());
    app.clock.advance(TimeDelta::minutes(1));
    refused(&app.calls(), key).await;
    assert!(app.calls().drain(PATIENCE).await);
    assert_eq!(app.test.count("usage WHERE error_code = 'BD-LIMIT-KEY'").await, 31);
    assert_eq!(app.test.count("usage").await, 31);
    assert_eq!(app.test.count("api_calls").await, 0);
    assert_eq!(app.test.count("api_keys WHERE last_used_at IS NOT NULL").await, 0);
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_only_others_have_set_aside_is_no_quota_that_is_used_up() {
    let app = App::new().await;
    let key = key(&app).await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::TokensTotal, 300).await;
    app.limit_of(LimitOwner::ApiKey(key), LimitKind::MessagesPerDay, 10)
        .await;
    let (one, two) = (begun(&app.calls(), key).await, begun(&app.calls(), key).await);
    let seen = refused(&app.calls(), key).await;
    let room: Vec<_> = seen.room.iter().map(|room| (room.kind, room.left)).collect();
    assert!(seen.is_passing);
    assert_eq!(room, [(LimitKind::MessagesPerDay, 8), (LimitKind::TokensTotal, 0)]);

    let (stop, task) = writer(&app);
    let end = Finish::Complete("stop".to_owned());
    app.calls().finish(one, outcome(end.clone(), 100, 10), None, 200);
    app.calls().finish(two, outcome(end, 100, 41), None, 200);
    until(&app, "holds", 0).await;
    let seen = refused(&app.calls(), key).await;
    let room: Vec<_> = seen.room.iter().map(|room| (room.kind, room.left)).collect();
    assert!(!seen.is_passing, "49 tokens are left, and nobody gives any back");
    assert_eq!(room, [(LimitKind::MessagesPerDay, 8), (LimitKind::TokensTotal, 49)]);
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_stops_waits_for_its_calls_and_takes_no_more() {
    let app = App::new().await;
    let key = key(&app).await;
    let (stop, task) = writer(&app);
    let call = begun(&app.calls(), key).await;
    let calls = app.calls();
    let mut drained = Box::pin(calls.drain(PATIENCE));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut drained).await;
    assert!(early.is_err(), "a call still runs");
    assert!(app.calls().begin(&wish(key)).is_none());
    let line = call.line(app.now());
    call.end(line);
    assert!(drained.await);
    assert_eq!(app.test.count("usage").await, 1);
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_takes_too_long_for_a_process_that_stops_is_told_to_end_and_written() {
    let app = App::new().await;
    let key = key(&app).await;
    let (stop, task) = writer(&app);
    let call = begun(&app.calls(), key).await;
    let cut = app.calls().cancel();
    let ends = async {
        cut.cancelled().await;
        let line = call.line(app.now());
        call.end(line);
    };
    let calls = app.calls();
    let (drained, ()) = tokio::join!(calls.drain(Duration::from_millis(50)), ends);
    assert!(drained);
    assert_eq!(app.test.count("usage").await, 1);
    stop.send(()).unwrap();
    task.await.unwrap();
}
