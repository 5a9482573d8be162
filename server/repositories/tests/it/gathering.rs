//! Several updates that become one job: albums and long pastes.

use domain::JobId;
use repositories::{
    jobs::{self, Claimed, End, Gather, NewUpdate, Role},
    updates,
};
use serde_json::Value;

use crate::{
    database::TestDatabase,
    fixtures::{accept, claim, end, in_lane},
};

const WHEN: i64 = 1_795_378_000;

fn part(update_id: i64, lane: &str, key: &str, role: Role) -> NewUpdate {
    let gather = Gather {
        key: key.to_owned(),
        role,
        sent_at: WHEN,
    };
    NewUpdate {
        gather: Some(gather),
        ..in_lane(update_id, lane)
    }
}

fn later(mut update: NewUpdate, seconds: i64) -> NewUpdate {
    if let Some(gather) = &mut update.gather {
        gather.sent_at += seconds;
    }
    update
}

/// The waits of gathering jobs are over.
async fn time_passes(test: &TestDatabase) {
    test.run("UPDATE jobs SET run_at = now() WHERE run_at > now()").await;
}

/// The update ids of which a claimed job consists, its own first.
async fn ids(test: &TestDatabase, job: &Claimed) -> Vec<i64> {
    let mut db = test.acquire().await.unwrap();
    let others = updates::parts(&mut db, job.id).await.unwrap();
    assert_eq!(
        usize::try_from(job.parts).unwrap(),
        others.len() + 1,
        "the number of parts"
    );
    let id = |update: &Value| update["update_id"].as_i64().unwrap();
    std::iter::once(id(&job.update)).chain(others.iter().map(id)).collect()
}

/// Runs everything there is, and says of which updates each job was.
async fn work_off(test: &TestDatabase) -> Vec<Vec<i64>> {
    let mut done = Vec::new();
    loop {
        time_passes(test).await;
        let hand = claim(test, 9).await;
        if hand.is_empty() {
            return done;
        }
        for job in hand {
            done.push(ids(test, &job).await);
            assert!(end(test, &job, End::Done).await);
        }
    }
}

#[tokio::test]
async fn an_album_in_one_batch_is_one_job_that_waits_for_more() {
    let test = TestDatabase::new().await;
    let album = |id| part(id, "a", "album:1", Role::Opens);
    assert_eq!(accept(&test, &[album(1), album(2), album(3)]).await, 3);
    assert!(claim(&test, 9).await.is_empty(), "it did not wait");
    let wait: f64 = test
        .one("SELECT extract(epoch FROM run_at - created_at)::float8 FROM jobs")
        .await;
    assert!((1.0..=2.5).contains(&wait), "{wait}");
    assert_eq!(work_off(&test).await, [vec![1, 2, 3]]);
    assert_eq!((test.count("updates").await, test.count("jobs").await), (3, 1));
}

#[tokio::test]
async fn parts_that_come_one_by_one_join_and_prolong_the_wait_up_to_ten_seconds() {
    let test = TestDatabase::new().await;
    let album = |id| part(id, "a", "album:1", Role::Opens);
    accept(&test, &[album(1)]).await;
    test.run("UPDATE jobs SET created_at = created_at - interval '9 seconds'")
        .await;
    accept(&test, &[album(2)]).await;
    let whole: f64 = test
        .one("SELECT extract(epoch FROM run_at - created_at)::float8 FROM jobs")
        .await;
    assert!((9.0..=10.01).contains(&whole), "{whole}");
    accept(&test, &[album(3)]).await;
    assert_eq!(work_off(&test).await, [vec![1, 2, 3]]);
}

#[tokio::test]
async fn a_short_part_closes_a_paste_at_once_and_what_follows_is_a_request_of_its_own() {
    let test = TestDatabase::new().await;
    let long = |id| part(id, "a", "paste:7", Role::Opens);
    let short = |id| part(id, "a", "paste:7", Role::Closes);
    // Part by part.
    accept(&test, &[long(1)]).await;
    accept(&test, &[long(2)]).await;
    accept(&test, &[short(3)]).await;
    accept(&test, &[short(4)]).await;
    let job = claim(&test, 9).await.remove(0);
    assert_eq!(ids(&test, &job).await, [1, 2, 3]);
    assert!(end(&test, &job, End::Done).await);
    let job = claim(&test, 9).await.remove(0);
    assert_eq!(ids(&test, &job).await, [4], "a short text alone waits for nothing");
    assert!(end(&test, &job, End::Done).await);
    // The same in one batch, with one more that begins anew.
    accept(&test, &[long(11), long(12), short(13), short(14), long(15)]).await;
    let job = claim(&test, 9).await.remove(0);
    assert_eq!(ids(&test, &job).await, [11, 12, 13]);
    assert!(end(&test, &job, End::Done).await);
    accept(&test, &[short(16)]).await;
    assert_eq!(work_off(&test).await, [vec![14], vec![15, 16]]);
}

#[tokio::test]
async fn others_in_the_lane_other_lanes_and_other_times_do_not_join() {
    let test = TestDatabase::new().await;
    let paste = |id, lane: &str, who: &str, role| part(id, lane, &format!("paste:{who}"), role);
    accept(&test, &[paste(1, "a", "7", Role::Opens)]).await;
    accept(
        &test,
        &[
            paste(2, "a", "8", Role::Closes),
            paste(3, "b", "7", Role::Closes),
            in_lane(4, "a"),
        ],
    )
    .await;
    // Sent eleven seconds later: nobody's app takes so long to send the rest.
    accept(&test, &[later(paste(5, "a", "7", Role::Closes), 11)]).await;
    let mut done = work_off(&test).await;
    done.sort();
    assert_eq!(done, [[1], [2], [3], [4], [5]]);
    // After an outage all come in one batch.
    accept(
        &test,
        &[
            paste(11, "a", "7", Role::Opens),
            later(paste(12, "a", "7", Role::Opens), 60),
            later(paste(13, "a", "7", Role::Closes), 61),
        ],
    )
    .await;
    assert_eq!(work_off(&test).await, [vec![11], vec![12, 13]]);
}

#[tokio::test]
async fn a_command_ends_the_paste_before_it_and_is_not_overtaken() {
    let test = TestDatabase::new().await;
    let paste = |id, role| part(id, "a", "paste:7", role);
    accept(&test, &[paste(1, Role::Opens)]).await;
    accept(&test, &[paste(2, Role::Breaks)]).await;
    accept(&test, &[paste(3, Role::Closes)]).await;
    assert_eq!(
        ids(&test, &claim(&test, 9).await[0]).await,
        [1],
        "it waits for nothing any more"
    );
    test.run("DELETE FROM jobs").await;
    accept(
        &test,
        &[paste(11, Role::Opens), paste(12, Role::Breaks), paste(13, Role::Closes)],
    )
    .await;
    assert_eq!(work_off(&test).await, [[11], [12], [13]]);
}

#[tokio::test]
async fn repeats_change_nothing_also_when_the_first_part_is_one() {
    let test = TestDatabase::new().await;
    let album = |id| part(id, "a", "album:1", Role::Opens);
    accept(&test, &[album(1), album(2)]).await;
    let before: Value = test.one("SELECT to_jsonb(j) FROM jobs j").await;
    assert_eq!(accept(&test, &[album(1), album(2), album(1)]).await, 0);
    assert_eq!(test.one::<Value>("SELECT to_jsonb(j) FROM jobs j").await, before);
    // A batch that begins with a repeat: the new part finds the job that is there.
    assert_eq!(accept(&test, &[album(1), album(3), album(3)]).await, 1);
    let job = {
        time_passes(&test).await;
        claim(&test, 9).await.remove(0)
    };
    assert_eq!(ids(&test, &job).await, [1, 2, 3]);
    // While it runs, and when it is over, a repeat is a repeat and a new part is a request of its own.
    assert_eq!(accept(&test, &[album(2), album(4), album(5)]).await, 2);
    assert!(end(&test, &job, End::Done).await);
    assert_eq!(accept(&test, &[album(1), album(4)]).await, 0);
    assert_eq!(work_off(&test).await, [vec![4, 5]]);
    // Redelivered out of order, in another batch.
    assert_eq!(accept(&test, &[album(5), album(1), album(3)]).await, 0);
    assert!(work_off(&test).await.is_empty());
}

#[tokio::test]
async fn a_job_that_gathers_keeps_waiting_when_the_one_before_it_ends() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let first = claim(&test, 1).await.remove(0);
    accept(&test, &[part(2, "a", "album:1", Role::Opens)]).await;
    assert!(end(&test, &first, End::Done).await);
    assert!(
        claim(&test, 1).await.is_empty(),
        "it was promoted before its parts were there"
    );
    accept(&test, &[part(3, "a", "album:1", Role::Opens)]).await;
    assert_eq!(work_off(&test).await, [vec![2, 3]]);
}

#[tokio::test]
async fn a_job_that_was_tried_takes_no_more_parts() {
    let test = TestDatabase::new().await;
    let album = |id| part(id, "a", "album:1", Role::Opens);
    accept(&test, &[album(1)]).await;
    time_passes(&test).await;
    let job = claim(&test, 1).await.remove(0);
    let again = End::Retry {
        after_seconds: 60.0,
        error: "x",
        crashes: 0,
    };
    assert!(end(&test, &job, again).await);
    accept(&test, &[album(2)]).await;
    assert_eq!(work_off(&test).await, [[1], [2]]);
}

/// Parts come while workers take what they can: each part is in exactly one request, whoever is first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_part_is_lost_to_a_worker_that_takes_the_job_at_the_same_moment() {
    let test = TestDatabase::new().await;
    const ALBUMS: i64 = 60;
    const PARTS: i64 = 5;
    let feed = async {
        let lanes = (0..ALBUMS).map(|album| {
            let test = &test;
            async move {
                for n in 0..PARTS {
                    let id = album * PARTS + n;
                    accept(test, &[part(id, &format!("lane {album}"), "album", Role::Opens)]).await;
                    test.run(&format!(
                        "UPDATE jobs SET run_at = now() WHERE lane = 'lane {album}' AND state = 'ready'"
                    ))
                    .await;
                }
            }
        });
        futures::future::join_all(lanes).await;
    };
    let work = async {
        let mut seen: Vec<i64> = Vec::new();
        let (mut jobs, mut gathered) = (0, 0);
        while seen.len() < usize::try_from(ALBUMS * PARTS).unwrap() {
            for job in claim(&test, 3).await {
                let ids = ids(&test, &job).await;
                jobs += 1;
                gathered += ids.len() - 1;
                seen.extend(ids);
                assert!(end(&test, &job, End::Done).await);
            }
        }
        seen.sort_unstable();
        println!("{jobs} jobs, {gathered} parts joined one");
        seen
    };
    let both = async { tokio::join!(feed, work) };
    let ((), seen) = tokio::time::timeout(std::time::Duration::from_secs(60), both)
        .await
        .expect("a part was lost");
    assert_eq!(seen, (0..ALBUMS * PARTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn waiting_requests_can_be_made_part_of_the_running_one() {
    let test = TestDatabase::new().await;
    accept(
        &test,
        &[in_lane(1, "a"), in_lane(2, "a"), in_lane(3, "a"), in_lane(4, "b")],
    )
    .await;
    let job = claim(&test, 1).await.remove(0);
    let mut tx = test.begin().await.unwrap();
    jobs::lock_lane(&mut tx, Some("a")).await.unwrap();
    let waiting = updates::waiting(&mut tx, "a", 10).await.unwrap();
    let ids: Vec<JobId> = waiting.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 2);
    updates::absorb(&mut tx, job.id, &ids).await.unwrap();
    tx.commit().await.unwrap();
    assert!(end(&test, &job, End::Done).await);
    assert_eq!(work_off(&test).await, [[4]]);
    assert_eq!(test.count("jobs WHERE state = 'done'").await, 4);
}
