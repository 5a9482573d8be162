//! The ledger by month: what is old moves over, what is written goes on being written, what is too old goes.

use chrono::TimeDelta;
use repositories::rollups;

use crate::database::TestDatabase;

const MIGRATION: &str = "20261124400001_usage_by_month.sql";

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

#[tokio::test]
async fn what_stood_in_the_ledger_is_there_afterwards() {
    let test = TestDatabase::empty().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "sql"))
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|file| file.file_name().unwrap().to_str() < Some(MIGRATION))
    {
        test.run(&std::fs::read_to_string(file).unwrap()).await;
    }
    test.run(PERSON).await;
    line(&test, "now() - interval '200 days'").await;
    line(&test, "now()").await;
    let rows = "SELECT md5(string_agg(job_id::text || at || user_id || bot_id || conversation_id || cost || felt_ms || first_token_ms, ',' ORDER BY at)) FROM usage";
    let before: String = test.one(rows).await;
    test.run(&std::fs::read_to_string(format!("{folder}/{MIGRATION}")).unwrap())
        .await;
    assert_eq!(test.one::<String>(rows).await, before);
    assert_eq!(test.count("pg_class WHERE relname = 'usage_before'").await, 0);
    // A replica of the release before knows nothing of it.
    line(&test, "now() + interval '5 seconds'").await;
    line(&test, "now() - interval '31 days'").await;
    assert_eq!(test.count("usage WHERE cache = '' AND alias IS NULL").await, 4);
}

#[tokio::test]
async fn months_are_dropped_when_they_are_old_enough() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let now = test.now().await.unwrap();
    test.run(
        "SELECT ensure_usage_partitions((now() AT TIME ZONE 'UTC')::date - 200, (now() AT TIME ZONE 'UTC')::date)",
    )
    .await;
    line(&test, "now() - interval '200 days'").await;
    line(&test, "now()").await;
    // In the month that is two back: the first that is kept.
    line(&test, "date_trunc('month', now(), 'UTC') - interval '2 months'").await;
    let dropped = test.drop_old_usage(now, 2).await.unwrap();
    assert!(dropped >= 4, "{dropped}");
    assert_eq!(test.count("usage").await, 2);
    assert_eq!(test.drop_old_usage(now, 2).await.unwrap(), 0);
    test.ensure_partitions().await.unwrap();
    assert_eq!(test.count("usage").await, 2);
}

#[tokio::test]
async fn old_months_are_let_be_while_somebody_writes() {
    let test = TestDatabase::new().await;
    test.run(PERSON).await;
    let now = test.now().await.unwrap() + TimeDelta::days(400);
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
    let day = domain::Period::Day.start(now - TimeDelta::days(1));
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
    let roll = || async {
        loop {
            let mut tx = test.begin().await.unwrap();
            let more = rollups::roll_hour(&mut tx, closed).await.unwrap();
            tx.commit().await.unwrap();
            if !more {
                break;
            }
        }
    };
    futures::join!(roll(), roll(), roll());
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
    roll().await;
    assert_eq!(
        test.one::<String>("SELECT md5(string_agg(h::text, ',' ORDER BY starts_at)) FROM usage_hours h")
            .await,
        before
    );
    // A clock that is behind takes nothing back.
    let mut tx = test.begin().await.unwrap();
    assert!(!rollups::roll_hour(&mut tx, closed - TimeDelta::hours(5)).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(rollups::until(&mut db).await.unwrap(), Some(closed));
}
