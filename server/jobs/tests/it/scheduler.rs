use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::deck::Deck;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn housekeeping_is_done_at_once_and_by_many_replicas_without_harm() {
    let deck = Deck::new().await;
    let anna = deck.person("anna").await;
    let worker = deck.worker("one");
    deck.say(&anna, "hello").await;
    deck.until("jobs WHERE state = 'done'", 1).await;
    worker.end().await;
    deck.test
        .run("UPDATE jobs SET finished_at = now() - interval '50 hours'")
        .await;
    let partitions = "pg_inherits WHERE inhparent = 'messages'::regclass";
    let last: String = deck
        .test
        .one("SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'messages'::regclass")
        .await;
    deck.test.run(&format!("DROP TABLE {last}")).await;
    deck.until(partitions, 3).await;

    let stop = CancellationToken::new();
    let schedulers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(jobs::schedule(deck.services.clone(), stop.clone())))
        .collect();
    deck.until(partitions, 4).await;
    deck.until("jobs", 0).await;
    stop.cancel();
    for scheduler in schedulers {
        scheduler.await.unwrap();
    }
    assert_eq!(deck.texts(&anna).await, ["Echo: hello"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_waits_for_the_ledger_to_be_summed_up() {
    let deck = Deck::new().await;
    deck.test
        .run(
            "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by)
              VALUES (gen_random_uuid(), 'n', 'p', decode(repeat('00', 32), 'hex'), '{x}', now(), 'c')",
        )
        .await;
    // What is due at the same moment is taken in any order.
    for _ in 0..6 {
        deck.test
            .run("WITH silent AS (
                      INSERT INTO api_replicas (id, alive_at) VALUES (gen_random_uuid(), now() - interval '1 hour') RETURNING id
                  )
                  INSERT INTO api_calls (id, replica_id, api_key_id, alias, began_at, estimated_tokens, estimated_cost)
                  SELECT gen_random_uuid(), s.id, k.id, 'a', now(), 1, 1 FROM silent s, api_keys k")
            .await;
        let mut sums = deck.test.begin().await.unwrap();
        sqlx::query("SELECT FROM usage_rolled FOR UPDATE")
            .execute(&mut *sums)
            .await
            .unwrap();
        let stop = CancellationToken::new();
        let scheduler = tokio::spawn(jobs::schedule(deck.services.clone(), stop.clone()));
        // Less than whoever sums up waits for a lock.
        tokio::time::timeout(Duration::from_secs(3), deck.until("api_calls", 0))
            .await
            .expect("a lost call is charged while the sums wait");
        sums.rollback().await.unwrap();
        stop.cancel();
        scheduler.await.unwrap();
    }
}
