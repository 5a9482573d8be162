use std::collections::HashSet;

use chrono::TimeDelta;
use domain::views::{Author, RichText};
use futures::future::join_all;
use repositories::{browser, deliveries, jobs::End, people, sessions};
use serde_json::json;

use crate::{
    database::TestDatabase,
    fixtures::{self, BOT, accept, claim, end, in_lane},
};

#[tokio::test]
async fn a_stranger_who_writes_twice_at_once_is_one_person_in_one_conversation() {
    let test = TestDatabase::new().await;
    let now = test.now().await.unwrap();
    for stranger in 0..5 {
        let met = join_all(
            (0..12).map(|_| async { fixtures::meet(&mut test.acquire().await.unwrap(), stranger, now).await }),
        )
        .await;
        let places: HashSet<_> = met
            .iter()
            .map(|known| (known.user, known.chat, known.conversation))
            .collect();
        assert_eq!(places.len(), 1);
        assert_eq!(met[0].plan_name, "free");
    }
    assert_eq!((test.count("users").await, test.count("conversations").await), (5, 5));
}

#[tokio::test]
async fn a_visit_is_noted_at_most_once_a_minute_and_never_backwards() {
    let test = TestDatabase::new().await;
    let mut db = test.acquire().await.unwrap();
    let now = test.now().await.unwrap();
    let seen = || test.one::<chrono::DateTime<chrono::Utc>>("SELECT last_seen_at FROM users");
    for (seconds, expected) in [(0, 0), (59, 0), (61, 61), (30, 61), (200, 200)] {
        fixtures::meet(&mut db, 7, now + TimeDelta::seconds(seconds)).await;
        assert_eq!(
            seen().await,
            now + TimeDelta::seconds(expected),
            "after a visit at {seconds} s"
        );
    }
}

#[tokio::test]
async fn a_closed_chat_is_told_and_can_open_again() {
    let test = TestDatabase::new().await;
    let mut db = test.acquire().await.unwrap();
    let now = test.now().await.unwrap();
    assert!(!fixtures::meet(&mut db, 7, now).await.chat_closed);
    people::set_chat_closed(&mut db, BOT, 7, Some(now)).await.unwrap();
    assert!(fixtures::meet(&mut db, 7, now).await.chat_closed);
    assert!(!fixtures::meet(&mut db, 8, now).await.chat_closed);
    people::set_chat_closed(&mut db, BOT, 7, None).await.unwrap();
    assert!(!fixtures::meet(&mut db, 7, now).await.chat_closed);
}

fn rich(text: &str) -> RichText {
    RichText {
        text: text.to_owned(),
        entities: Vec::new(),
    }
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn deliveries_remember_what_arrived_across_a_second_attempt() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a"), in_lane(2, "b")]).await;
    let jobs = claim(&test, 2).await;
    let (job, other, chat) = (jobs[0].id, jobs[1].id, format!("{BOT}/1"));
    let (token, others) = (jobs[0].token, jobs[1].token);
    let mut db = test.acquire().await.unwrap();
    deliveries::begin_preview(&mut db, job, token, &chat, 0).await.unwrap();
    deliveries::sent(&mut db, job, token, 0, &[100]).await.unwrap();
    // Run again: the preview that stands there keeps its id, and the final text comes beside it.
    deliveries::begin_preview(&mut db, job, token, &chat, 0).await.unwrap();
    deliveries::store(&mut db, job, &chat, &[rich("one"), rich("two")])
        .await
        .unwrap();
    deliveries::store(&mut db, other, &chat, &[rich("other")])
        .await
        .unwrap();
    let parts = deliveries::load(&mut db, job).await.unwrap();
    let told: Vec<_> = parts
        .iter()
        .map(|part| (part.body.as_ref().unwrap().text.as_str(), part.message_id))
        .collect();
    assert_eq!(told, [("one", Some(100)), ("two", None)]);
    // Both jobs are being worked on, and of the other nothing has an id yet either.
    let unnoted = async |db: &mut _, chat: &str| {
        let known = deliveries::known_ids(db, job, BOT, chat, 100, 9.0).await.unwrap();
        (known.in_row.unwrap().unnoted, known.in_chat.unwrap().unnoted)
    };
    assert_eq!(unnoted(&mut db, &chat).await, (2, 2));
    deliveries::sent(&mut db, job, token, 1, &[101]).await.unwrap();
    assert_eq!(unnoted(&mut db, &chat).await, (1, 1));
    assert_eq!(unnoted(&mut db, &format!("{BOT}/2")).await, (1, 0));
    deliveries::sent(&mut db, other, others, 0, &[102]).await.unwrap();
    let known = deliveries::known_ids(&mut db, job, BOT, &chat, 100, 9.0).await.unwrap();
    assert_eq!(sorted(known.in_chat.unwrap().ids), [101, 102]);
    let elsewhere = deliveries::known_ids(&mut db, job, BOT, &format!("{BOT}/2"), 0, 9.0)
        .await
        .unwrap();
    assert!(elsewhere.in_chat.unwrap().ids.is_empty());
    assert!(elsewhere.in_row.unwrap().ids.contains(&101));
    // What was written to the bot there takes an id of the chat, too.
    let mut written = in_lane(105, "c");
    written.payload = serde_json::json!({ "message": { "chat": { "id": 1 } } });
    accept(&test, &[written]).await;
    let known = deliveries::known_ids(&mut db, job, BOT, &chat, 101, 9.0).await.unwrap();
    assert_eq!(sorted(known.in_chat.unwrap().ids), [102, 105]);
    // What was noted before a job began to send lies below what it sent: it need not be looked for there.
    assert!(end(&test, &jobs[1], End::Done).await);
    accept(&test, &[in_lane(106, "d")]).await;
    let begun = claim(&test, 9).await.pop().unwrap();
    let later = begun.id;
    deliveries::begin_preview(&mut db, later, begun.token, &chat, 0)
        .await
        .unwrap();
    let known = deliveries::known_ids(&mut db, later, BOT, &chat, 1, 9.0).await.unwrap();
    assert_eq!((known.in_chat.unwrap().after, known.in_row.unwrap().after), (105, 106));
    let supergroup = format!("{BOT}/-1001234567890");
    let known = deliveries::known_ids(&mut db, later, BOT, &supergroup, 1, 9.0)
        .await
        .unwrap();
    assert!(known.in_row.is_none() && known.in_chat.unwrap().after == 1);
    // What was begun after it can have been sent has a larger id.
    deliveries::sent(&mut db, later, begun.token, 0, &[107]).await.unwrap();
    let before = async |db: &mut _, seconds| {
        let known = deliveries::known_ids(db, job, BOT, &chat, 1, seconds).await.unwrap();
        (known.in_chat.unwrap().before, known.in_row.unwrap().before)
    };
    test.run("UPDATE deliveries SET begun_at = now() - interval '1 minute' WHERE message_id < 107")
        .await;
    assert_eq!(before(&mut db, 0.0).await, (None, None));
    assert_eq!(before(&mut db, 30.0).await, (Some(107), Some(107)));
    let highest = async |db: &mut _, seconds| {
        let known = deliveries::known_ids(db, job, BOT, &chat, 1, seconds).await.unwrap();
        known.in_row.unwrap().highest
    };
    assert_eq!((highest(&mut db, 0.0).await, highest(&mut db, 30.0).await), (107, 102));
    // Twenty of other chats, and none of them twice: it is plain that there is one row.
    test.run(&format!(
        "INSERT INTO deliveries (job_id, part, chat, message_id) SELECT job_id, n, '{BOT}/3', 110 + n FROM deliveries, generate_series(1, 20) AS n WHERE message_id = 107"
    ))
    .await;
    let known = deliveries::known_ids(&mut db, job, BOT, &chat, 101, 30.0)
        .await
        .unwrap();
    assert!(known.in_row.is_some() && known.in_chat.is_none());
    // Two chats with one id: here each numbers for itself.
    test.run(&format!(
        "UPDATE deliveries SET chat = '{BOT}/2', message_id = 101 WHERE message_id = 107"
    ))
    .await;
    let known = deliveries::known_ids(&mut db, job, BOT, &chat, 1, 30.0).await.unwrap();
    assert!(known.in_row.is_none() && known.in_chat.unwrap().before.is_none());
}

/// Two bots and a supergroup beside a private chat: each has ids of its own, and none hides or takes those of another.
#[tokio::test]
async fn ids_of_other_bots_and_of_supergroups_are_told_apart() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0).id;
    let other = "00000000-0000-0000-0000-00000000b072";
    test.run(&format!(
        "INSERT INTO deliveries (job_id, chat, part, message_id) SELECT job_id, chat, n, id FROM (SELECT id AS job_id FROM jobs) j, (VALUES
             ('{BOT}/1', 10, 5000), ('{BOT}/-1001234567890', 11, 301), ('{other}/1', 12, 5001), ('{other}/2', 13, 302)
         ) AS t (chat, n, id)"
    ))
    .await;
    let mut db = test.acquire().await.unwrap();
    let private = deliveries::known_ids(&mut db, job, BOT, &format!("{BOT}/1"), 300, 9.0)
        .await
        .unwrap();
    assert_eq!(private.in_row.unwrap().ids, [5000]);
    assert_eq!(private.in_chat.unwrap().ids, [5000]);
    let supergroup = format!("{BOT}/-1001234567890");
    let supergroup = deliveries::known_ids(&mut db, job, BOT, &supergroup, 300, 9.0)
        .await
        .unwrap();
    assert!(supergroup.in_row.is_none());
    assert_eq!(supergroup.in_chat.unwrap().ids, [301]);
}

#[tokio::test]
async fn a_part_may_have_been_sent_until_it_is_known_that_it_was_not() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0);
    let mut db = test.acquire().await.unwrap();
    deliveries::store(&mut db, job.id, "chat", &[rich("one"), rich("two")])
        .await
        .unwrap();
    let suspects = async |db: &mut _| {
        let parts = deliveries::resume(db, job.id, 49).await.unwrap().into_iter();
        parts.map(|part| part.lost.maybe_sent).collect::<Vec<_>>()
    };
    assert_eq!(suspects(&mut db).await, [true, false], "only the first was begun");
    deliveries::unsent(&mut db, job.id, uuid::Uuid::nil()).await.unwrap();
    assert_eq!(suspects(&mut db).await, [true, false], "somebody else has the job");
    deliveries::unsent(&mut db, job.id, job.token).await.unwrap();
    assert_eq!(suspects(&mut db).await, [false, false]);
    assert_eq!(suspects(&mut db).await, [true, false], "it was begun again");
    deliveries::tried(&mut db, job.id, 0, &[7, 8], &[9]).await.unwrap();
    let lost = deliveries::resume(&mut db, job.id, 49).await.unwrap().remove(0).lost;
    assert_eq!((lost.tried, lost.trying, lost.previewed), (vec![7, 8], vec![9], false));
    deliveries::sent(&mut db, job.id, job.token, 0, &[9]).await.unwrap();
    assert_eq!(suspects(&mut db).await, [false, true]);
    // Stored anew, as by an edit: it is begun.
    deliveries::unsent(&mut db, job.id, job.token).await.unwrap();
    deliveries::store(&mut db, job.id, "chat", &[rich("one"), rich("other")])
        .await
        .unwrap();
    assert_eq!(suspects(&mut db).await, [false, true]);
    // The ids of what came after it may be forgotten.
    test.run("UPDATE jobs SET created_at = now() - interval '50 hours'")
        .await;
    assert_eq!(suspects(&mut db).await, [false, false]);
    // That there is no answer is no part of one.
    deliveries::apologised(&mut db, job.id, "chat", 10).await.unwrap();
    let last = deliveries::resume(&mut db, job.id, 49).await.unwrap().pop().unwrap();
    assert_eq!((last.body, last.message_id), (None, Some(10)));
    assert_eq!(deliveries::load(&mut db, job.id).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_body_with_nul_is_stored_without_it() {
    let test = TestDatabase::new().await;
    accept(&test, &[in_lane(1, "a")]).await;
    let job = claim(&test, 1).await.remove(0);
    let mut db = test.acquire().await.unwrap();
    let stored = deliveries::store(&mut db, job.id, "chat", &[rich("a\0b")]).await;
    assert!(
        stored.is_ok(),
        "an answer with NUL in it could never be sent: {stored:?}"
    );
    // A space in its place: the marks after it keep their offsets.
    assert_eq!(
        deliveries::load(&mut db, job.id).await.unwrap()[0].body,
        Some(rich("a b"))
    );
    let now = test.now().await.unwrap();
    let shown = browser::insert(&mut db, BOT, 1, Author::Bot, &rich("a\0b"), true, now).await;
    assert!(shown.is_ok(), "{shown:?}");
}

#[tokio::test]
async fn the_playground_tells_what_changed_since_a_revision() {
    let test = TestDatabase::new().await;
    let mut db = test.acquire().await.unwrap();
    let now = test.now().await.unwrap();
    let question = browser::insert(&mut db, BOT, 1, Author::User, &rich("hi"), true, now)
        .await
        .unwrap();
    let answer = browser::insert(&mut db, BOT, 1, Author::Bot, &rich("hel"), false, now)
        .await
        .unwrap();
    browser::insert(&mut db, BOT, 2, Author::Bot, &rich("elsewhere"), true, now)
        .await
        .unwrap();
    let (first, revision) = browser::changes(&mut db, BOT, 1, 0, 10).await.unwrap();
    assert_eq!(
        first.iter().map(|message| message.id).collect::<Vec<_>>(),
        [question, answer]
    );
    assert!(
        browser::changes(&mut db, BOT, 1, revision, 10)
            .await
            .unwrap()
            .0
            .is_empty()
    );

    assert!(
        browser::edit(&mut db, BOT, 1, answer, &rich("hello"), true)
            .await
            .unwrap()
    );
    assert!(
        !browser::edit(&mut db, BOT, 1, question, &rich("forged"), true)
            .await
            .unwrap()
    );
    assert!(
        !browser::edit(&mut db, BOT, 2, answer, &rich("other chat"), true)
            .await
            .unwrap()
    );
    let (changed, next) = browser::changes(&mut db, BOT, 1, revision, 10).await.unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(
        (changed[0].id, changed[0].body.text.as_str(), changed[0].complete),
        (answer, "hello", true)
    );
    assert!(next > revision);
    assert_eq!(
        browser::bot_messages_after(&mut db, BOT, 1, question).await.unwrap(),
        [answer]
    );
}

#[tokio::test]
async fn a_session_lives_until_it_expires() {
    let test = TestDatabase::new().await;
    let mut db = test.acquire().await.unwrap();
    let now = test.now().await.unwrap();
    let (soon, past) = (now + TimeDelta::hours(1), now - TimeDelta::seconds(1));
    assert!(sessions::create(&mut db, "a", &json!({"n": 1}), soon).await.unwrap());
    assert!(
        !sessions::create(&mut db, "a", &json!({"n": 2}), soon).await.unwrap(),
        "an id was given twice"
    );
    assert_eq!(
        sessions::load(&mut db, "a").await.unwrap(),
        Some((json!({"n": 1}), soon))
    );
    assert!(sessions::save(&mut db, "a", &json!({"n": 3}), past).await.unwrap());
    assert_eq!(sessions::load(&mut db, "a").await.unwrap(), None);
    assert!(sessions::create(&mut db, "b", &json!({}), soon).await.unwrap());
    assert_eq!(sessions::delete_expired(&mut db).await.unwrap(), 1);
    sessions::delete(&mut db, "b").await.unwrap();
    // One that was ended does not come back with what a request of it had still to save.
    assert!(!sessions::save(&mut db, "b", &json!({}), soon).await.unwrap());
    assert_eq!(test.count("sessions").await, 0);
}

#[tokio::test]
async fn a_session_is_kept_under_a_hash_and_ends_after_thirty_days_however_often_it_was_prolonged() {
    let test = TestDatabase::new().await;
    let mut db = test.acquire().await.unwrap();
    let soon = test.now().await.unwrap() + TimeDelta::hours(1);
    assert!(sessions::create(&mut db, "the id", &json!({}), soon).await.unwrap());
    assert_eq!(test.count("sessions WHERE sessions::text LIKE '%the id%'").await, 0);
    test.run("UPDATE sessions SET created_at = now() - interval '29 days 23 hours'")
        .await;
    assert!(sessions::save(&mut db, "the id", &json!({}), soon).await.unwrap());
    assert!(sessions::load(&mut db, "the id").await.unwrap().is_some());
    test.run("UPDATE sessions SET created_at = created_at - interval '1 hour'")
        .await;
    assert_eq!(sessions::load(&mut db, "the id").await.unwrap(), None);
    assert_eq!(sessions::delete_expired(&mut db).await.unwrap(), 1);
}
