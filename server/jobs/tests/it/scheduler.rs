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
