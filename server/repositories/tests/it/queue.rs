use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use domain::{BotId, JobId};
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use repositories::jobs::{self, Claimed, End, NewUpdate, Room, Which, Work};
use tokio::sync::Barrier;

use crate::{
    database::TestDatabase,
    fixtures::{BOT, accept, claim, end, in_lane, state, update},
};

const LANES: usize = 10;
const WORKERS: usize = 8;
const UPDATES: i64 = 200;

/// What eight workers saw together.
#[derive(Default)]
struct Seen {
    running: HashSet<String>,
    order: HashMap<String, Vec<i64>>,
    done: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lane_runs_in_order_one_at_a_time_and_lanes_run_beside_each_other() {
    let test = TestDatabase::new().await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrived: HashMap<String, Vec<i64>> = HashMap::new();
    let updates: Vec<NewUpdate> = (0..UPDATES)
        .map(|id| {
            // The first ones fill every lane, so that all workers have something to do at once.
            let lane = usize::try_from(id)
                .ok()
                .filter(|id| *id < LANES)
                .unwrap_or_else(|| random.random_range(0..LANES));
            let lane = format!("lane {lane}");
            arrived.entry(lane.clone()).or_default().push(id);
            in_lane(id, &lane)
        })
        .collect();
    let (early, late) = updates.split_at(LANES);
    accept(&test, early).await;

    let seen = Mutex::new(Seen::default());
    let all_busy = Barrier::new(WORKERS);
    let feed = async {
        let mut rest = late;
        let mut random = StdRng::seed_from_u64(seed ^ 1);
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(random.random_range(1..=rest.len().min(12)));
            assert_eq!(accept(&test, batch).await, batch.len() as u64);
            rest = after;
        }
    };
    let work = |number: usize| {
        let (test, seen, all_busy) = (&test, &seen, &all_busy);
        let mut random = StdRng::seed_from_u64(seed ^ (2 + number as u64));
        async move {
            // Every worker holds a job of another lane before any of them ends one.
            let mut hand = claim(test, 1).await;
            assert_eq!(hand.len(), 1, "a worker found nothing while lanes were free");
            started(seen, &hand);
            all_busy.wait().await;
            loop {
                hand.shuffle(&mut random);
                while let Some(job) = hand.pop() {
                    for _ in 0..random.random_range(0..20) {
                        tokio::task::yield_now().await;
                    }
                    finished(seen, &job);
                    assert!(end(test, &job, End::Done).await);
                }
                if seen.lock().unwrap().done == usize::try_from(UPDATES).unwrap() {
                    return;
                }
                hand = claim(test, random.random_range(1..=4)).await;
                started(seen, &hand);
            }
        }
    };
    let everything = async { tokio::join!(feed, join_all((0..WORKERS).map(work))) };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(60), everything).await;

    let seen = seen.into_inner().unwrap();
    assert!(
        in_time.is_ok(),
        "stranded after {} of {UPDATES}: jobs were left behind",
        seen.done
    );
    assert_eq!(seen.order, arrived, "the order of a lane was not that of arrival");
    assert_eq!(test.count("jobs WHERE state = 'done' AND attempts = 1").await, UPDATES);
}

fn started(seen: &Mutex<Seen>, jobs: &[Claimed]) {
    let mut seen = seen.lock().unwrap();
    for job in jobs {
        let lane = job.lane.clone().unwrap();
        assert!(seen.running.insert(lane.clone()), "two jobs of {lane} ran at once");
        seen.order
            .entry(lane)
            .or_default()
            .push(job.update["update_id"].as_i64().unwrap());
    }
}

fn finished(seen: &Mutex<Seen>, job: &Claimed) {
    let mut seen = seen.lock().unwrap();
    seen.running.remove(job.lane.as_deref().unwrap());
    seen.done += 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_arrives_while_the_one_before_ends_is_never_left_waiting() {
    let test = TestDatabase::new().await;
    let mut next = 0;
    for round in 0..200 {
        let lane = format!("lane {}", round % 3);
        accept(&test, &[in_lane(next, &lane)]).await;
        let running = claim(&test, 1).await.remove(0);
        let (second, third) = (in_lane(next + 1, &lane), in_lane(next + 2, &lane));
        let late = [third];
        let (ended, ..) = tokio::join!(
            end(&test, &running, End::Done),
            accept(&test, std::slice::from_ref(&second)),
            accept(&test, &late)
        );
        assert!(ended);
        // Both are there; exactly one of them may run, and after it the other.
        for left in [1, 0] {
            let job = claim(&test, 9).await;
            assert_eq!(job.len(), 1, "round {round}: {} of the lane may run", job.len());
            assert_eq!(test.count("jobs WHERE state = 'waiting'").await, left);
            assert!(end(&test, &job[0], End::Done).await);
        }
        next += 3;
    }
    assert_eq!(test.count("jobs WHERE state <> 'done'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_take_at_the_same_moment_never_get_the_same_job_nor_more_than_they_asked_for() {
    let test = TestDatabase::new().await;
    let updates: Vec<NewUpdate> = (0..120).map(|id| update(id, Some(Work::Overtakes(None)))).collect();
    accept(&test, &updates).await;
    test.run("ANALYZE jobs; ANALYZE updates").await;
    let taken = join_all((0..16).map(|_| claim(&test, 5))).await;
    assert!(taken.iter().all(|jobs| jobs.len() <= 5));
    let ids: Vec<JobId> = taken.into_iter().flatten().map(|job| job.id).collect();
    assert_eq!(
        ids.iter().collect::<HashSet<_>>().len(),
        ids.len(),
        "a job was taken twice"
    );
    assert_eq!(
        test.count("jobs WHERE state = 'running'").await,
        i64::try_from(ids.len()).unwrap()
    );
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_can_neither_write_nor_end() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let first = claim(&test, 1).await.remove(0);
    test.run("UPDATE jobs SET lease_until = now() - interval '1 second'")
        .await;
    let mut db = test.acquire().await.unwrap();
    let lost = jobs::lost(&mut db, 10).await.unwrap();
    assert_eq!(
        lost.iter().map(|job| (job.id, job.token)).collect::<Vec<_>>(),
        [(first.id, first.token)]
    );
    drop(db);
    let back = End::Retry {
        after_seconds: 0.0,
        error: "gone",
        crashes: 1,
    };
    assert!(end(&test, &first, back).await);
    let second = claim(&test, 1).await.remove(0);
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_ne!(second.token, first.token);

    let mut tx = test.begin().await.unwrap();
    assert!(!jobs::hold(&mut tx, first.id, first.token).await.unwrap());
    assert!(jobs::hold(&mut tx, second.id, second.token).await.unwrap());
    assert_eq!(
        jobs::heartbeat(&mut tx, &[first.token, second.token], 60.0)
            .await
            .unwrap(),
        [second.token]
    );
    drop(tx);
    for how in [End::Done, End::Returned, End::Dead { error: "x" }] {
        assert!(!end(&test, &first, how).await);
    }
    assert_eq!(state(&test, second.id).await, "running");
    assert!(end(&test, &second, End::Done).await);
    // Nor can the job be ended twice.
    assert!(!end(&test, &second, End::Done).await);
}

#[tokio::test]
async fn a_living_worker_keeps_its_lease() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0);
    test.run("UPDATE jobs SET lease_until = now() + interval '1 second'")
        .await;
    let mut db = test.acquire().await.unwrap();
    assert_eq!(
        jobs::heartbeat(&mut db, &[job.token], 500.0).await.unwrap(),
        [job.token]
    );
    assert!(jobs::lost(&mut db, 10).await.unwrap().is_empty());
    let left: f64 = test
        .one("SELECT extract(epoch FROM lease_until - now())::float8 FROM jobs")
        .await;
    assert!((400.0..=500.0).contains(&left), "{left} s");
    assert!(
        jobs::claim(&mut db, "other", 9, 60.0, Which::All, &[])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_retry_waits_its_time_and_holds_its_lane_meanwhile() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a"), in_lane(2, "a")]).await;
    let job = claim(&test, 9).await.remove(0);
    let later = End::Retry {
        after_seconds: 300.0,
        error: "busy",
        crashes: 0,
    };
    assert!(end(&test, &job, later).await);
    let wait: f64 = test
        .one("SELECT extract(epoch FROM run_at - now())::float8 FROM jobs WHERE state = 'ready'")
        .await;
    assert!((290.0..=300.0).contains(&wait), "{wait} s");
    assert!(claim(&test, 9).await.is_empty(), "the lane was overtaken");
    test.run("UPDATE jobs SET run_at = now() WHERE state = 'ready'").await;
    let again = claim(&test, 9).await.remove(0);
    assert_eq!((again.id, again.attempt), (job.id, 2));
    let error: String = test.one("SELECT last_error FROM jobs WHERE state = 'running'").await;
    assert_eq!(error, "busy");
}

#[tokio::test]
async fn a_dead_letter_is_kept_and_lets_the_next_of_its_lane_run() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a"), in_lane(2, "a"), in_lane(3, "a")]).await;
    let job = claim(&test, 9).await.remove(0);
    assert!(end(&test, &job, End::Dead { error: "hopeless" }).await);
    let next = claim(&test, 9).await;
    assert_eq!(
        next.iter()
            .map(|job| job.update["update_id"].clone())
            .collect::<Vec<_>>(),
        [2]
    );
    let kept: (String, String, bool) =
        sqlx::query_as("SELECT state, last_error, finished_at IS NOT NULL FROM jobs WHERE id = $1")
            .bind(job.id.0)
            .fetch_one(test.pool())
            .await
            .unwrap();
    assert_eq!(kept, ("dead".to_owned(), "hopeless".to_owned(), true));
}

#[tokio::test]
async fn what_a_stopping_worker_gives_back_costs_no_attempt_and_keeps_its_place() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a"), in_lane(2, "a")]).await;
    for _ in 0..20 {
        let job = claim(&test, 9).await.remove(0);
        assert_eq!((job.update["update_id"].clone(), job.attempt), (1.into(), 1));
        assert!(end(&test, &job, End::Returned).await);
    }
}

#[tokio::test]
async fn stopping_a_lane_stops_what_runs_in_it_and_nothing_else() {
    let test = TestDatabase::new().await;
    let stop = update(4, Some(Work::Overtakes(Some("a/stop".to_owned()))));
    accept(&test, &[in_lane(1, "a"), in_lane(2, "a"), in_lane(3, "b"), stop]).await;
    let stop = claim(&test, 1).await.remove(0);
    let mut db = test.acquire().await.unwrap();
    // What has not begun yet is stopped as soon as it does.
    assert_eq!(jobs::cancel_lane(&mut db, "a", stop.id).await.unwrap(), 1);
    let held = claim(&test, 9).await;
    let (a, b) = (&held[0], &held[1]);
    assert_eq!(
        jobs::cancel_lane(&mut db, "a", stop.id).await.unwrap(),
        0,
        "it was asked to already"
    );
    assert_eq!(jobs::cancelled(&mut db, &[a.token, b.token]).await.unwrap(), [a.token]);
    assert!(end(&test, a, End::Done).await);
    let next = claim(&test, 9).await.remove(0);
    assert!(
        jobs::cancelled(&mut db, &[next.token, b.token])
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(test.count("jobs WHERE cancel_requested").await, 1);
}

/// Sent at once, as they are when somebody was without a connection; and a `/stop` whose worker went away is done again.
#[tokio::test]
async fn what_was_asked_after_a_stop_is_not_stopped_by_it() {
    let test = TestDatabase::new().await;
    let stop = || Some(Work::Overtakes(Some("a/stop".to_owned())));
    accept(
        &test,
        &[in_lane(1, "a"), update(2, stop()), in_lane(3, "a"), update(4, stop())],
    )
    .await;
    let held = claim(&test, 9).await;
    let (stop, first) = (&held[0], &held[1]);
    assert!(stop.overtakes && !first.overtakes);
    assert_eq!(held.len(), 2, "two of a lane at once");
    let mut db = test.acquire().await.unwrap();
    assert!(end(&test, first, End::Done).await);
    let question = claim(&test, 9).await.remove(0);
    assert_eq!(question.update["update_id"], 3);
    for _ in 0..2 {
        assert_eq!(jobs::cancel_lane(&mut db, "a", stop.id).await.unwrap(), 0);
    }
    assert!(end(&test, stop, End::Done).await);
    let later = claim(&test, 9).await.remove(0);
    assert_eq!(jobs::cancel_lane(&mut db, "a", later.id).await.unwrap(), 1);
}

/// Of two bots, so that the lanes say which.
fn of(bot: BotId, update_id: i64, chat: i64) -> NewUpdate {
    in_lane(update_id, &format!("{bot}/{chat}/0"))
}

#[tokio::test]
async fn of_each_bot_no_more_is_taken_than_there_is_room_for_and_the_oldest_first() {
    let test = TestDatabase::new().await;
    let other = BotId(uuid::Uuid::from_u128(7));
    let updates: Vec<NewUpdate> = (0..10).map(|n| of(BOT, n, n)).chain([of(other, 10, 1)]).collect();
    accept(&test, &updates).await;
    let mut db = test.acquire().await.unwrap();
    let room = |ordinary| {
        [Room {
            bot: BOT,
            ordinary,
            overtaking: 1,
        }]
    };
    let mut take = async |which, room: &[Room]| {
        let taken = jobs::claim(&mut db, "worker", 32, 60.0, which, room).await.unwrap();
        taken
            .iter()
            .map(|job| job.update["update_id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(take(Which::Ordinary, &room(3)).await, [0, 1, 2, 10]);
    assert!(take(Which::All, &room(0)).await.is_empty());
    assert!(take(Which::Overtaking, &[]).await.is_empty());
    let stop = |id: i64| update(id, Some(Work::Overtakes(Some(format!("{BOT}/{id}/0/message")))));
    accept(&test, &[stop(11), stop(12)]).await;
    assert!(take(Which::Ordinary, &room(0)).await.is_empty());
    assert_eq!(take(Which::All, &room(0)).await, [11]);
    assert_eq!(take(Which::All, &room(1)).await, [12, 3]);
}

#[tokio::test]
async fn what_is_given_back_goes_to_nobodys_end() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0);
    accept(&test, &[in_lane(2, "b")]).await;
    assert!(end(&test, &job, End::Returned).await);
    let job = claim(&test, 1).await.remove(0);
    assert_eq!(job.update["update_id"], 1);
    let mut db = test.acquire().await.unwrap();
    assert_eq!(jobs::hand_over(&mut db, &[job.token]).await.unwrap(), 1);
    assert_eq!(claim(&test, 1).await[0].update["update_id"], 1);
}

#[tokio::test]
async fn one_who_sends_five_hundred_does_not_delay_the_others() {
    let test = TestDatabase::new().await;
    let flood: Vec<NewUpdate> = (0..500).map(|n| in_lane(n, "eager")).collect();
    accept(&test, &flood).await;
    let others: Vec<NewUpdate> = (0..9).map(|n| in_lane(500 + n, &format!("lane {n}"))).collect();
    accept(&test, &others).await;
    // One hand: between two of the eager one, everybody else has a turn.
    let mut order = Vec::new();
    for _ in 0..11 {
        let job = claim(&test, 1).await.remove(0);
        order.push(job.update["update_id"].as_i64().unwrap());
        assert!(end(&test, &job, End::Done).await);
    }
    assert_eq!(order, [0, 500, 501, 502, 503, 504, 505, 506, 507, 508, 1]);
}

#[tokio::test]
async fn nothing_is_asked_for_a_bot_that_is_stopped_or_cannot_speak() {
    let test = TestDatabase::new().await;
    let stop = update(2, Some(Work::Overtakes(Some(format!("{BOT}/1/0/message")))));
    accept(&test, &[of(BOT, 1, 1), stop]).await;
    test.run("UPDATE bots SET token_refused = true, fault = 'refused'")
        .await;
    assert!(claim(&test, 9).await.is_empty());
    // Stopped: what is said to a running answer still is.
    test.run("UPDATE bots SET fault = NULL, enabled = false").await;
    let held = claim(&test, 9).await;
    assert_eq!((held.len(), held[0].overtakes), (1, true));
    test.run("UPDATE bots SET enabled = true").await;
    assert_eq!(claim(&test, 9).await[0].update["update_id"], 1);
}

/// A worker that is frozen with a transaction open holds what it has locked.
#[tokio::test]
async fn whoever_hangs_with_a_job_keeps_neither_the_lost_ones_nor_the_leases_of_others() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a"), in_lane(2, "b")]).await;
    let held = claim(&test, 9).await;
    let mut hanging = test.begin().await.unwrap();
    assert!(jobs::hold(&mut hanging, held[0].id, held[0].token).await.unwrap());
    let mut db = test.acquire().await.unwrap();
    let tokens = [held[0].token, held[1].token];
    let mut kept = jobs::renew(&mut db, &tokens, 500.0).await.unwrap();
    kept.sort_unstable();
    let mut both = tokens.to_vec();
    both.sort_unstable();
    assert_eq!(kept, both, "nobody has lost anything");
    let renewed = "jobs WHERE lease_until > now() + interval '400 seconds'";
    assert_eq!(test.count(renewed).await, 1);

    sqlx::query("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = $1")
        .bind(held[1].id.0)
        .execute(&mut *db)
        .await
        .unwrap();
    let lost = jobs::lost(&mut db, 9).await.unwrap();
    assert_eq!(lost.iter().map(|job| job.id).collect::<Vec<_>>(), [held[1].id]);
}

#[tokio::test]
async fn pruning_takes_old_finished_jobs_and_leaves_dead_letters_and_open_ones() {
    let test = TestDatabase::new().await;
    let updates: Vec<NewUpdate> = (0..5).map(|id| in_lane(id, &format!("lane {id}"))).collect();
    accept(&test, &updates).await;
    let held = claim(&test, 4).await;
    assert!(end(&test, &held[0], End::Done).await);
    assert!(end(&test, &held[1], End::Dead { error: "x" }).await);
    assert!(end(&test, &held[2], End::Done).await);
    test.run("INSERT INTO deliveries (job_id, part, chat) SELECT id, 0, 'chat' FROM jobs")
        .await;
    test.run("UPDATE jobs SET finished_at = now() - interval '25 hours' WHERE finished_at IS NOT NULL")
        .await;
    test.run(&format!(
        "UPDATE jobs SET finished_at = now() - interval '23 hours' WHERE id = '{}'",
        held[2].id
    ))
    .await;
    let mut db = test.acquire().await.unwrap();
    assert_eq!(jobs::prune(&mut db, 24).await.unwrap(), 1);
    assert_eq!(jobs::prune(&mut db, 24).await.unwrap(), 0);
    assert_eq!(test.count(&format!("jobs WHERE id = '{}'", held[0].id)).await, 0);
    assert_eq!((test.count("jobs").await, test.count("deliveries").await), (4, 4));
    // The update stays, so that the same one delivered again is still known.
    drop(db);
    assert_eq!(accept(&test, &updates).await, 0);
}

#[tokio::test]
async fn the_state_of_the_queue_is_told() {
    let test = TestDatabase::new().await;
    let mut db = test.acquire().await.unwrap();
    let empty = jobs::queue_state(&mut db).await.unwrap();
    assert_eq!(
        (empty.waiting, empty.running, empty.dead, empty.oldest_ms),
        (0, 0, 0, None)
    );
    let stop = update(9, Some(Work::Overtakes(None)));
    accept(&test, &[in_lane(1, "a"), in_lane(2, "a"), in_lane(3, "b"), stop]).await;
    test.run("UPDATE jobs SET created_at = now() - interval '1 minute' WHERE lane = 'a'")
        .await;
    let held = claim(&test, 2).await;
    assert!(end(&test, &held[0], End::Dead { error: "x" }).await);
    let state = jobs::queue_state(&mut db).await.unwrap();
    assert_eq!((state.waiting, state.running, state.dead), (2, 1, 1));
    assert!((60_000..70_000).contains(&state.oldest_ms.unwrap()), "{state:?}");
}

#[tokio::test]
async fn an_error_text_from_elsewhere_never_keeps_a_job_from_ending() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0);
    let mut tx = test.begin().await.unwrap();
    let dead = End::Dead { error: "broken\0text" };
    let ended = jobs::end(&mut tx, job.id, job.token, job.lane.as_deref(), dead).await;
    assert!(matches!(ended, Ok(Some(_))), "{ended:?}");
}
