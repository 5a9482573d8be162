//! The ledger by month: the table that was there becomes the first of them while others write; what is too old goes when it is summed
//! up; what comes late is summed up as well.

use std::time::Duration;

use chrono::{DateTime, Months, TimeDelta, Utc};
use domain::Period;
use repositories::{PgConnection, rollups};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::database::TestDatabase;

/// The steps by which the ledger comes to be by month.
const FIRST_STEP: &str = "20261124400002_usage_columns.sql";
const LAST_STEP: &str = "20261124400009_usage_by_month.sql";

/// As the release before writes it.
const OLD_LINE: &str = "INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens,
        cached_tokens, reported, cost, attempts, finish, first_token_ms, total_ms, felt_ms)
    SELECT gen_random_uuid(), $AT, v.user_id, c.bot_id, v.id, 'p', 'm', 10, 5, 2, true, 70, 1, 'stop', 40, 50, 60
    FROM conversations v JOIN chats c ON c.id = v.chat_id";

const PERSON: &str = "
    INSERT INTO users (id, transport, external_id, name, plan_id, created_at, last_seen_at)
        VALUES (gen_random_uuid(), 'telegram', 7, 'Anna', '01930000-0000-7000-8000-000000000001', now(), now());
    INSERT INTO chats (id, bot_id, external_id, kind, title, created_at)
        VALUES (gen_random_uuid(), '01930000-0000-7000-8000-0000000000b0', 7, 'private', 'Anna', now());
    INSERT INTO conversations (id, chat_id, user_id, started_at, last_at)
        SELECT gen_random_uuid(), c.id, u.id, now(), now() FROM users u, chats c";

async fn line(test: &TestDatabase, at: &str) {
    assert_eq!(test.run(&OLD_LINE.replace("$AT", at)).await, 1);
}

/// Names and contents of all migrations, in their order.
fn migrations() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "sql"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// As a release before has left it, with a long ledger.
async fn before_the_months() -> TestDatabase {
    let test = TestDatabase::empty().await;
    for (_, sql) in migrations().iter().filter(|(name, _)| name.as_str() < FIRST_STEP) {
        test.run(sql).await;
    }
    test.run(PERSON).await;
    let many = format!("{OLD_LINE}, generate_series(0, 4999) AS n").replace("$AT", "now() - n * interval '1 hour'");
    assert_eq!(test.run(&many).await, 5000);
    test.run("VACUUM ANALYZE usage").await;
    test
}

async fn execute(db: &mut PgConnection, sql: &str) {
    db.execute(AssertSqlSafe(sql.to_owned()))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn the_ledger_becomes_the_first_month_and_whoever_writes_waits_for_no_line_of_it_to_be_read() {
    let test = before_the_months().await;
    let rows = "SELECT md5(string_agg(job_id::text || at || user_id || bot_id || conversation_id || cost || felt_ms || first_token_ms, ',' ORDER BY at)) FROM usage";
    let before: String = test.one(rows).await;
    let table: sqlx::postgres::types::Oid = test.one("SELECT 'usage'::regclass::oid").await;
    let file = format!("SELECT pg_relation_filenode({})::bigint", table.0);
    let stored: i64 = test.one(&file).await;

    let mut migrator = PgConnection::connect(test.url()).await.unwrap();
    let mut read_in_all = 0;
    for (name, sql) in migrations() {
        if name.as_str() < FIRST_STEP || name.as_str() > LAST_STEP {
            continue;
        }
        if sql.starts_with("-- no-transaction") {
            assert!(sql.contains(" INDEX CONCURRENTLY IF NOT EXISTS "), "{name}");
            execute(&mut migrator, &sql).await;
            continue;
        }
        let mut tx = migrator.begin().await.unwrap();
        // What earlier transactions have read is told here as well, until it is handed in.
        let read_before: i64 = sqlx::query_scalar("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = $1")
            .bind(table)
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        execute(&mut tx, &sql).await;
        let done = sqlx::query(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND relation = $1
                            AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) AS alone,
                    (SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = $1) AS read",
        )
        .bind(table)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        let (alone, read) = (done.get::<bool, _>("alone"), done.get::<i64, _>("read") - read_before);
        assert!(
            !alone || read == 0,
            "{name} keeps writers out while it reads {read} rows"
        );
        read_in_all += read;
        tx.commit().await.unwrap();
    }
    assert!(read_in_all >= 5000, "what is counted is what is read: {read_in_all}");

    assert_eq!(test.one::<String>(rows).await, before);
    assert_eq!(test.one::<i64>(&file).await, stored, "it was written anew");
    assert_eq!(
        test.count(&format!(
            "pg_inherits WHERE inhparent = 'usage'::regclass AND inhrelid = {}",
            table.0
        ))
        .await,
        1
    );
    // A replica of the release before knows nothing of it.
    line(&test, "now() + interval '5 seconds'").await;
    line(&test, "now() - interval '31 days'").await;
    assert_eq!(test.count("usage WHERE cache = '' AND alias IS NULL").await, 5002);
    // All later steps and the months to come fit.
    for (_, sql) in migrations().iter().filter(|(name, _)| name.as_str() > LAST_STEP) {
        test.run(sql).await;
    }
    test.ensure_partitions().await.unwrap();
    line(&test, "now() + interval '3 months' - interval '4 days'").await;
}

#[tokio::test]
async fn who_reads_the_ledger_for_long_keeps_nobody_from_writing_while_it_is_to_be_changed() {
    let test = before_the_months().await;
    let mut reader = PgConnection::connect(test.url()).await.unwrap();
    let mut migrator = PgConnection::connect(test.url()).await.unwrap();
    let mut dump = reader.begin().await.unwrap();
    execute(&mut dump, "LOCK TABLE usage IN ACCESS SHARE MODE").await;
    let (_, sql) = migrations().into_iter().find(|(name, _)| name == FIRST_STEP).unwrap();
    let step = tokio::spawn(async move { execute(&mut migrator, &sql).await });
    let waits = "pg_locks WHERE relation = 'usage'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted";
    while test.count(waits).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    line(&test, "now()").await;
    assert!(!step.is_finished(), "it has not waited for the dump");
    dump.rollback().await.unwrap();
    step.await.unwrap();
    line(&test, "now()").await;
}

async fn close(test: &TestDatabase, closed: DateTime<Utc>) -> repositories::Result<()> {
    let mut tx = test.begin().await?;
    rollups::close(&mut tx, closed).await?;
    tx.commit().await?;
    Ok(())
}

async fn roll_hour(test: &TestDatabase) -> bool {
    let mut tx = test.begin().await.unwrap();
    let more = rollups::roll_hour(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    more
}

async fn roll_late(test: &TestDatabase, kept: DateTime<Utc>) -> bool {
    let mut tx = test.begin().await.unwrap();
    let more = rollups::roll_late(&mut tx, kept).await.unwrap();
    tx.commit().await.unwrap();
    more
}

async fn roll(test: &TestDatabase, closed: DateTime<Utc>) {
    close(test, closed).await.unwrap();
    while roll_hour(test).await {}
}

#[tokio::test]
async fn months_are_dropped_when_they_are_old_enough_and_all_of_them_is_summed_up() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let now = test.now().await.unwrap();
    // The first partition ends with the month after this one.
    let next = Period::Month.start(now) + Months::new(2);
    let later = next + Months::new(2) + TimeDelta::days(1);
    let drop = async || test.drop_old_usage(later, 2).await.unwrap();
    line(&test, "now() - interval '200 days'").await;
    line(&test, "now()").await;
    line(&test, &format!("'{next}'")).await;

    assert_eq!(drop().await, 0, "nothing of it is summed up");
    roll(&test, next - TimeDelta::hours(1)).await;
    assert_eq!(drop().await, 0, "its last hour is not summed up");
    roll(&test, next).await;
    line(&test, "now()").await;
    assert_eq!(drop().await, 0, "what came late is not summed up");
    assert!(roll_late(&test, Period::Day.start(now)).await);
    assert_eq!(drop().await, 1);
    assert_eq!(test.count("usage").await, 1);
    assert_eq!(test.one::<i64>("SELECT sum(calls)::bigint FROM usage_days").await, 3);

    assert_eq!(drop().await, 0);
    test.ensure_partitions().await.unwrap();
    assert_eq!(test.count("usage").await, 1);
}

#[tokio::test]
async fn old_months_are_let_be_while_somebody_writes() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let now = test.now().await.unwrap() + TimeDelta::days(400);
    roll(&test, Period::Day.start(now)).await;
    let mut writer = test.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE usage IN ROW EXCLUSIVE MODE")
        .execute(&mut *writer)
        .await
        .unwrap();
    let refused = test.drop_old_usage(now, 2).await;
    assert!(refused.is_err(), "{refused:?}");
    writer.rollback().await.unwrap();
    assert!(test.drop_old_usage(now, 2).await.unwrap() > 0);
}

#[tokio::test]
async fn an_hour_is_summed_up_once_however_many_do_it() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let now = test.now().await.unwrap();
    let day = Period::Day.start(now - TimeDelta::days(1));
    for (hour, minutes) in [(1, 0), (1, 59), (3, 7), (23, 30)] {
        line(
            &test,
            &format!("'{}'", day + TimeDelta::hours(hour) + TimeDelta::minutes(minutes)),
        )
        .await;
    }
    test.run(&format!(
        "UPDATE usage SET finish = 'failed', first_token_ms = NULL WHERE at = '{}'",
        day + TimeDelta::minutes(119)
    ))
    .await;
    let closed = day + TimeDelta::hours(23);
    futures::join!(roll(&test, closed), roll(&test, closed), roll(&test, closed));
    assert_eq!(
        test.column::<i64>("SELECT calls FROM usage_hours ORDER BY starts_at")
            .await,
        [2, 1]
    );
    assert_eq!(
        test.column::<i64>("SELECT failed FROM usage_hours ORDER BY starts_at")
            .await,
        [1, 0]
    );
    assert_eq!(test.column::<i64>("SELECT cost FROM usage_days").await, [210]);
    // The failure's time is nobody's answer time.
    assert_eq!(
        test.column::<i64>("SELECT (SELECT sum(n) FROM unnest(felt) AS n)::bigint FROM usage_days")
            .await,
        [2]
    );
    let mut db = test.acquire().await.unwrap();
    assert_eq!(rollups::until(&mut db).await.unwrap(), Some(closed));
    // The hour that has not ended is added from the ledger.
    let sums = rollups::sums(&mut db, day).await.unwrap();
    assert_eq!(
        (sums.calls, sums.failed, sums.tokens, sums.cost.nanos()),
        (4, 1, 60, 280)
    );
    assert_eq!(
        sums.felt.percentile(50),
        Some(58),
        "the first of three between 50 and 75 ms"
    );
    assert_eq!(rollups::spent(&mut db, day).await.unwrap().nanos(), 280);
    // Done again, even from the beginning, it says the same.
    let before: String = test
        .one("SELECT md5(string_agg(h::text, ',' ORDER BY starts_at)) FROM usage_hours h")
        .await;
    test.run("UPDATE usage_rolled SET until = NULL").await;
    roll(&test, closed).await;
    assert_eq!(
        test.one::<String>("SELECT md5(string_agg(h::text, ',' ORDER BY starts_at)) FROM usage_hours h")
            .await,
        before
    );
    // A clock that is behind takes nothing back.
    roll(&test, closed - TimeDelta::hours(5)).await;
    assert_eq!(rollups::until(&mut db).await.unwrap(), Some(closed));
    // The day has not ended: it is made of its hours, which are kept.
    assert_eq!(
        rollups::prune_hours(&mut db, day + TimeDelta::days(1)).await.unwrap(),
        0
    );
}

#[tokio::test]
async fn what_comes_late_is_summed_up_as_well() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let day = Period::Day.start(test.now().await.unwrap() - TimeDelta::days(1));
    let (kept, end) = (day, day + TimeDelta::days(1));
    let at = |hour: i64| format!("'{}'", day + TimeDelta::hours(hour));
    let hours = async || {
        test.column::<i64>("SELECT calls FROM usage_hours ORDER BY starts_at")
            .await
    };
    let days = async || {
        test.column::<i64>("SELECT calls FROM usage_days ORDER BY starts_at")
            .await
    };
    line(&test, &at(1)).await;
    line(&test, &at(3)).await;
    roll(&test, end).await;
    assert_eq!((hours().await, days().await), (vec![1, 1], vec![2]));
    assert_eq!(test.count("usage_late").await, 0, "these were in time");

    line(&test, &at(3)).await;
    line(&test, &at(3)).await;
    line(&test, &at(5)).await;
    line(&test, &at(24)).await;
    assert!(roll_late(&test, kept).await && roll_late(&test, kept).await);
    assert_eq!((hours().await, days().await), (vec![1, 3, 1], vec![5]));
    assert!(
        !roll_late(&test, kept).await,
        "the line of the hour that goes on is in time"
    );

    // Of one that is being written nothing is seen, and nothing is forgotten.
    let mut writer = test.begin().await.unwrap();
    execute(&mut writer, &OLD_LINE.replace("$AT", &at(1))).await;
    assert!(!roll_late(&test, kept).await);
    writer.commit().await.unwrap();
    assert!(roll_late(&test, kept).await);
    assert_eq!((hours().await, days().await), (vec![2, 3, 1], vec![6]));

    // A day whose hours are forgotten is summed up from the ledger.
    let mut db = test.acquire().await.unwrap();
    assert_eq!(rollups::prune_hours(&mut db, end).await.unwrap(), 3);
    line(&test, &at(7)).await;
    assert!(roll_late(&test, end).await);
    assert_eq!(days().await, [7]);
}

#[tokio::test]
async fn an_hour_is_closed_when_nobody_writes_who_does_not_know_it() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let day = Period::Day.start(test.now().await.unwrap() - TimeDelta::days(1));
    roll(&test, day).await;
    let mut writer = test.begin().await.unwrap();
    execute(&mut writer, &OLD_LINE.replace("$AT", &format!("'{day}'"))).await;
    let refused = close(&test, day + TimeDelta::hours(1)).await.unwrap_err();
    assert!(refused.is_lock_timeout(), "{refused}");
    assert!(!roll_hour(&test).await);
    writer.commit().await.unwrap();
    roll(&test, day + TimeDelta::hours(1)).await;
    assert_eq!(test.column::<i64>("SELECT calls FROM usage_hours").await, [1]);
}
