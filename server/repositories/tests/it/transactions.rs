//! Callers that go away in the middle.

use std::time::Duration;

use repositories::Database;

use crate::database::TestDatabase;

/// A connection that was given back while its BEGIN was under way must not take the next one's writes into a transaction that
/// nobody commits.
#[tokio::test]
async fn a_transaction_given_up_while_it_begins_takes_nothing_with_it() {
    let test = TestDatabase::new().await;
    // One connection, so that the next caller gets this one.
    let db = Database::connect(test.url(), 1).await.unwrap();
    let rounds = 200;
    for round in 0..rounds {
        // Given up at other moments of its way each time.
        let patience = Duration::from_micros(round * 5);
        let _ = tokio::time::timeout(patience, db.begin()).await;
        let mut connection = db.acquire().await.unwrap();
        let kept = sqlx::query("INSERT INTO sign_in_failures (key, failures, last_at) VALUES ($1::text, 1, now())")
            .bind(round.to_string())
            .execute(&mut *connection);
        kept.await.unwrap();
    }
    // As others see it.
    assert_eq!(test.count("sign_in_failures").await, i64::try_from(rounds).unwrap());
}

/// Those who are to replace a frozen worker need what it has locked.
#[tokio::test]
async fn nobody_holds_or_waits_for_a_lock_for_longer_than_a_lease() {
    let test = TestDatabase::new().await;
    let mut frozen = test.begin().await.unwrap();
    sqlx::query("SELECT FROM bots FOR UPDATE")
        .execute(&mut *frozen)
        .await
        .unwrap();
    let begun = std::time::Instant::now();
    let mut waiting = test.begin().await.unwrap();
    let refused = sqlx::query("SELECT FROM bots FOR UPDATE").execute(&mut *waiting).await;
    let refused = repositories::Error::from(refused.unwrap_err());
    assert!(refused.is_lock_timeout() && refused.is_outage(), "{refused}");
    drop(waiting);
    // Waited in turn, since a patient one is served as soon as the frozen one is cut off.
    let mut db = test.acquire().await.unwrap();
    sqlx::query("SELECT FROM bots FOR UPDATE")
        .execute(&mut *db)
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    let gone = sqlx::query("SELECT 1").execute(&mut *frozen).await;
    assert!(repositories::Error::from(gone.unwrap_err()).is_outage());
}

/// Another replica may be at it, for as long as it takes.
#[tokio::test]
async fn a_migration_waits_for_its_turn() {
    let test = TestDatabase::new().await;
    let mut tx = test.begin().await.unwrap();
    sqlx::query("LOCK TABLE _sqlx_migrations")
        .execute(&mut *tx)
        .await
        .unwrap();
    let migrating = test.migrate();
    tokio::pin!(migrating);
    // Longer than others wait.
    let early = tokio::time::timeout(Duration::from_millis(4500), &mut migrating).await;
    assert!(early.is_err(), "{early:?}");
    tx.rollback().await.unwrap();
    migrating.await.unwrap();
}
