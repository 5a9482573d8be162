//! What a limit would have meant, by the ledger.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{LimitKind, UserId};
use repositories::{
    limit_reach::{self, Minutes, Whose},
    people::Known,
};

use crate::{
    database::TestDatabase,
    fixtures::{BOT, meet},
};

async fn answered(test: &TestDatabase, person: &Known, at: DateTime<Utc>, felt_ms: i64) {
    let line = format!(
        "INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens,
                            cached_tokens, reported, cost, attempts, finish, total_ms, felt_ms)
         VALUES (gen_random_uuid(), '{at}', '{}', '{BOT}', '{}', 'p', 'm', 1, 1, 0, true, 1, 1, 'stop', 1, {felt_ms})",
        person.user, person.conversation
    );
    assert_eq!(test.run(&line).await, 1);
}

fn busiest(minutes: &Minutes) -> Vec<(UserId, i64)> {
    let people = minutes.people.heaviest.iter();
    people.map(|person| (person.id, person.used)).collect()
}

#[tokio::test]
async fn minutes_are_those_in_which_messages_came_and_only_of_the_latest_calls() {
    let test = TestDatabase::new().await;
    let now = test.now().await.unwrap();
    let mut db = test.acquire().await.unwrap();
    let (anna, boris) = (meet(&mut db, 1, now).await, meet(&mut db, 2, now).await);
    let at = |seconds| now - TimeDelta::hours(1) + TimeDelta::seconds(seconds);
    for seconds in [0, 20, 40, 80] {
        answered(&test, &anna, at(seconds), 0).await;
    }
    // Answered more than a minute apart, and asked within one.
    answered(&test, &boris, at(-900), 0).await;
    answered(&test, &boris, at(-830), 30_000).await;
    // Too long ago.
    for _ in 0..9 {
        answered(&test, &boris, at(-4000), 0).await;
    }
    let since = now - TimeDelta::hours(2);
    let kind = LimitKind::MessagesPerMinute;
    let plan = Whose::Plan(anna.plan);
    let all = limit_reach::minutes(&mut db, plan, kind, Some(2), since, 1000, now)
        .await
        .unwrap();
    assert_eq!(busiest(&all), [(anna.user, 3), (boris.user, 2)]);
    assert_eq!((all.people.count, all.people.stopped, all.since), (2, 1, since));

    let few = limit_reach::minutes(&mut db, plan, kind, Some(1), since, 3, now)
        .await
        .unwrap();
    assert_eq!(busiest(&few), [(anna.user, 2), (boris.user, 0)]);
    assert_eq!((few.people.count, few.people.stopped, few.since), (2, 1, at(20)));

    let own = Whose::User(boris.user);
    let own = limit_reach::minutes(&mut db, own, kind, Some(1), since, 3, now)
        .await
        .unwrap();
    assert_eq!(
        (busiest(&own), own.people.stopped, own.since),
        (vec![(boris.user, 2)], 1, since)
    );
}
