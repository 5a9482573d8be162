//! Answers to similar questions: found by their space, gone with their time, and never more than so many.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{Likeness, UserId};
use repositories::{
    PgConnection,
    similar::{self, Look, NewAnswer},
};

use crate::{
    database::TestDatabase,
    fixtures::{BOT, meet, similar_answer},
};

const SPACE: [u8; 32] = [7; 32];

async fn answer(db: &mut PgConnection, user: UserId, space: &[u8; 32], text: &str, at: DateTime<Utc>) {
    let answer = NewAnswer {
        question: text,
        ..similar_answer(user, space, &[1.0], at)
    };
    similar::insert(db, &answer).await.unwrap();
}

#[tokio::test]
async fn a_space_holds_what_was_asked_in_it_for_its_time() {
    let test = TestDatabase::new().await;
    let now = test.now().await.unwrap();
    let mut db = test.acquire().await.unwrap();
    let user = meet(&mut db, 7, now).await.user;
    for (minutes, text) in [(0, "why?"), (30, "why not?\0")] {
        answer(&mut db, user, &SPACE, text, now + TimeDelta::minutes(minutes)).await;
    }
    answer(&mut db, user, &[8; 32], "elsewhere", now).await;
    let load = async |db: &mut PgConnection, since: Option<i64>, minutes: i64| {
        let since = since.map(|minutes| now + TimeDelta::minutes(minutes));
        let at = now + TimeDelta::minutes(minutes);
        similar::load(db, &SPACE, since, at, 10).await.unwrap()
    };
    let all = load(&mut db, None, 40).await;
    assert_eq!(all.len(), 2);
    assert_eq!(*all[0].vector, [1.0]);
    assert!(all[0].created_at > all[1].created_at, "the newest first");
    assert_eq!(load(&mut db, Some(10), 40).await.len(), 1);
    assert_eq!(load(&mut db, None, 70).await.len(), 1);
    let (newest, oldest) = (all[0].id, all[1].id);
    let late = now + TimeDelta::minutes(70);
    assert_eq!(
        similar::get(&mut db, newest, late).await.unwrap().unwrap().question,
        "why not?"
    );
    assert!(similar::get(&mut db, oldest, late).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_over_or_too_much_is_forgotten() {
    let test = TestDatabase::new().await;
    let now = test.now().await.unwrap();
    let mut db = test.acquire().await.unwrap();
    let user = meet(&mut db, 7, now).await.user;
    for n in 0..5 {
        let at = now - TimeDelta::minutes(n);
        answer(&mut db, user, &SPACE, &format!("question {n}"), at).await;
        let look = Look {
            bot: BOT,
            at,
            user,
            question: &format!("question {n}"),
            near_user: user,
            near_question: "why?",
            likeness: Likeness::of_thousandths(930),
            hit: n == 0,
        };
        similar::note(&mut db, &look).await.unwrap();
    }
    answer(&mut db, user, &SPACE, "long ago", now - TimeDelta::hours(2)).await;
    similar::prune(&mut db, 10, 10, now).await.unwrap();
    assert_eq!(
        (test.count("similar_answers").await, test.count("similar_looks").await),
        (5, 5)
    );
    similar::prune(&mut db, 3, 2, now).await.unwrap();
    assert_eq!(test.count("similar_answers").await, 3);
    let looks = similar::looks(&mut db, BOT, 10).await.unwrap();
    let questions: Vec<_> = looks.iter().map(|look| (look.question.as_str(), look.hit)).collect();
    assert_eq!(questions, [("question 0", true), ("question 1", false)]);
    assert_eq!(looks[0].user.name, "Anna");
}
