use futures::future::join_all;
use repositories::jobs::{self, NewUpdate, Work};
use serde_json::Value;

use crate::{
    database::TestDatabase,
    fixtures::{BOT, accept, claim, in_lane, update},
};

#[tokio::test]
async fn an_update_that_comes_twice_in_one_batch_is_one() {
    let test = TestDatabase::new().await;
    let first = in_lane(1, "a");
    let batch = [first.clone(), in_lane(2, "a"), in_lane(1, "a")];
    assert_eq!(accept(&test, &batch).await, 2);
    assert_eq!(test.count("updates").await, 2);
    let queued: Vec<(String, i64)> =
        sqlx::query_as("SELECT j.state, u.update_id FROM jobs j JOIN updates u ON u.id = j.id ORDER BY j.seq")
            .fetch_all(test.pool())
            .await
            .unwrap();
    assert_eq!(queued, [("ready".to_owned(), 1), ("waiting".to_owned(), 2)]);
    assert_eq!(claim(&test, 9).await[0].id.0, first.id);
}

#[tokio::test]
async fn an_update_that_comes_again_later_changes_nothing() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0);
    let before: Value = test
        .one("SELECT to_jsonb(j) || to_jsonb(u) FROM jobs j JOIN updates u USING (id)")
        .await;
    // Again with another text, and beside a new one.
    let mut again = in_lane(1, "b");
    again.payload = serde_json::json!({ "update_id": 1, "edited": true });
    assert_eq!(accept(&test, &[again, in_lane(2, "b")]).await, 1);
    let after: Value = test
        .one(&format!(
            "SELECT to_jsonb(j) || to_jsonb(u) FROM jobs j JOIN updates u USING (id) WHERE id = '{}'",
            job.id
        ))
        .await;
    assert_eq!(after, before);
    assert_eq!((test.count("updates").await, test.count("jobs").await), (2, 2));
    // The new one found its lane empty: the repeated one is not in it.
    assert_eq!(test.count("jobs WHERE lane = 'b' AND state = 'ready'").await, 1);
}

#[tokio::test]
async fn an_update_delivered_to_many_replicas_at_once_becomes_one_job() {
    let test = TestDatabase::new().await;
    for round in 0..20 {
        let batch = |_| {
            let test = &test;
            async move {
                let updates: Vec<NewUpdate> = (0..5)
                    .map(|n| in_lane(round * 5 + n, &format!("lane {}", n % 2)))
                    .collect();
                accept(test, &updates).await
            }
        };
        let new: u64 = join_all((0..6).map(batch)).await.into_iter().sum();
        assert_eq!(new, 5, "round {round}");
    }
    assert_eq!((test.count("updates").await, test.count("jobs").await), (100, 100));
    // And the two lanes have exactly one that may run each.
    let ready: Vec<String> = test
        .column("SELECT lane FROM jobs WHERE state = 'ready' ORDER BY lane")
        .await;
    assert_eq!(ready, ["lane 0", "lane 1"]);
}

#[tokio::test]
async fn batches_that_share_lanes_in_another_order_do_not_wait_for_each_other() {
    let test = TestDatabase::new().await;
    for round in 0..30 {
        let (here, there) = (round * 100, round * 100 + 50);
        let forth: Vec<NewUpdate> = (0..10).map(|n| in_lane(here + n, &format!("lane {n}"))).collect();
        let back: Vec<NewUpdate> = (0..10)
            .map(|n| in_lane(there + n, &format!("lane {}", 9 - n)))
            .collect();
        let (one, two) = tokio::join!(accept(&test, &forth), accept(&test, &back));
        assert_eq!((one, two), (10, 10));
    }
}

#[tokio::test]
async fn what_nobody_handles_is_kept_without_a_job() {
    let test = TestDatabase::new().await;
    assert_eq!(accept(&test, &[update(1, None)]).await, 1);
    assert_eq!((test.count("updates").await, test.count("jobs").await), (1, 0));
    let seen: bool = test
        .one(&format!(
            "SELECT last_update_at IS NOT NULL FROM bots WHERE id = '{BOT}'"
        ))
        .await;
    assert!(seen, "staff would think the bot silent");
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_neither_update_nor_job() {
    let test = TestDatabase::new().await;
    let mut tx = test.begin().await.unwrap();
    let now = test.now().await.unwrap();
    assert_eq!(jobs::accept(&mut tx, BOT, &[in_lane(1, "a")], now).await.unwrap(), 1);
    drop(tx);
    assert_eq!((test.count("updates").await, test.count("jobs").await), (0, 0));
    // So the same update, delivered again, is new.
    assert_eq!(accept(&test, &[in_lane(1, "a")]).await, 1);
}

#[tokio::test]
async fn what_overtakes_runs_at_once_beside_its_lane_and_before_others() {
    let test = TestDatabase::new().await;
    let stop = update(3, Some(Work::Overtakes(None)));
    accept(&test, &[in_lane(1, "a"), in_lane(2, "b"), stop.clone()]).await;
    let first = claim(&test, 1).await.remove(0);
    assert_eq!((first.id.0, first.lane.clone()), (stop.id, None));
    assert_eq!(claim(&test, 9).await.len(), 2);
}
