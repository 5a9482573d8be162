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
