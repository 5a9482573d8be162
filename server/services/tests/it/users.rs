use std::collections::{BTreeSet, HashSet};

use chrono::TimeDelta;
use domain::{
    LimitKind, UserId,
    views::{UserQuery, UserStatus},
};
use services::{Actor, Error, Incoming};

use crate::app::{App, FREE};

struct Office {
    app: App,
    actor: Actor,
}

impl Office {
    async fn new() -> Self {
        Self {
            app: App::new().await,
            actor: Actor::system("test"),
        }
    }

    async fn person(&self, id: i64, name: &str, username: Option<&str>) -> UserId {
        let incoming = Incoming {
            user_name: name.to_owned(),
            username: username.map(str::to_owned),
            ..self.app.incoming(id, id, "hi")
        };
        self.app.chats().meet(&incoming).await.unwrap().user
    }

    fn query(search: &str) -> UserQuery {
        UserQuery {
            search: search.parse().unwrap(),
            status: UserStatus::Any,
            plan: None,
            after: None,
        }
    }

    async fn found(&self, query: UserQuery) -> Vec<String> {
        let page = self.app.users().list(&self.actor, query).await.unwrap();
        let mut names: Vec<String> = page.rows.into_iter().map(|row| row.name).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn people_are_found_by_part_of_a_name_by_username_and_by_telegram_id() {
    let office = Office::new().await;
    office.person(1, "Anna Karenina", Some("anna_k")).await;
    office.person(2, "Анна Ёлкина", None).await;
    office.person(31415, "Bob", Some("Bobby")).await;
    for (search, expected) in [
        ("", vec!["Anna Karenina", "Bob", "Анна Ёлкина"]),
        ("KAREN", vec!["Anna Karenina"]),
        ("@anna_k", vec!["Anna Karenina"]),
        ("@bobby", vec!["Bob"]),
        ("анна ёл", vec!["Анна Ёлкина"]),
        ("АННА", vec!["Анна Ёлкина"]),
        ("31415", vec!["Bob"]),
        ("3141", vec![]),
        ("  bob  ", vec!["Bob"]),
        ("nobody", vec![]),
    ] {
        assert_eq!(office.found(Office::query(search)).await, expected, "{search:?}");
    }
}

#[tokio::test]
async fn wildcards_and_quotes_are_searched_for_as_they_stand() {
    let office = Office::new().await;
    let names = ["100% sure", "under_score", r"back\slash", "o'quote", "plain"];
    for (id, name) in (1..).zip(names) {
        office.person(id, name, None).await;
    }
    for (search, expected) in [
        ("%", vec!["100% sure"]),
        ("_", vec!["under_score"]),
        (r"\", vec![r"back\slash"]),
        (r"\%", vec![]),
        ("p%n", vec![]),
        ("pl_in", vec![]),
        ("'", vec!["o'quote"]),
        ("' OR true --", vec![]),
        ("%%%%", vec![]),
    ] {
        assert_eq!(office.found(Office::query(search)).await, expected, "{search:?}");
    }
}

#[tokio::test]
async fn the_list_is_narrowed_by_status_and_plan() {
    let office = Office::new().await;
    let (anna, bob) = (
        office.person(1, "Anna", None).await,
        office.person(2, "Bob", None).await,
    );
    office.person(3, "Carl", None).await;
    let gold = office
        .app
        .plans()
        .create(&office.actor, "gold".parse().unwrap())
        .await
        .unwrap();
    office.app.users().set_plan(&office.actor, bob, gold).await.unwrap();
    office
        .app
        .users()
        .block(&office.actor, anna, "spam".parse().unwrap())
        .await
        .unwrap();
    let narrowed = |status, plan| UserQuery {
        status,
        plan,
        ..Office::query("")
    };
    assert_eq!(office.found(narrowed(UserStatus::Blocked, None)).await, ["Anna"]);
    assert_eq!(office.found(narrowed(UserStatus::Active, None)).await, ["Bob", "Carl"]);
    assert_eq!(office.found(narrowed(UserStatus::Any, Some(gold))).await, ["Bob"]);
    assert_eq!(office.found(narrowed(UserStatus::Active, Some(FREE))).await, ["Carl"]);
    assert!(office.found(narrowed(UserStatus::Blocked, Some(gold))).await.is_empty());
}

#[tokio::test]
async fn pages_cover_everybody_once_while_somebody_new_appears() {
    let office = Office::new().await;
    let mut everybody = HashSet::new();
    for id in 0..120 {
        // Groups of five were seen in the same moment: the order must still be one.
        if id % 5 == 0 {
            office.app.clock.advance(TimeDelta::seconds(1));
        }
        everybody.insert(office.person(id, &format!("Person {id}"), None).await);
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, Vec::new());
    loop {
        let query = UserQuery {
            after: after.take(),
            ..Office::query("person")
        };
        let page = office.app.users().list(&office.actor, query).await.unwrap();
        pages.push(page.rows.len());
        assert!(
            page.rows
                .is_sorted_by(|a, b| (a.last_seen, a.id) >= (b.last_seen, b.id))
        );
        seen.extend(page.rows.iter().map(|row| row.id));
        office.app.clock.advance(TimeDelta::seconds(1));
        office
            .person(1000 + i64::try_from(seen.len()).unwrap(), "Person late", None)
            .await;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, [50, 50, 20]);
    assert_eq!(seen.len(), 120);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), everybody);
    for bad in ["x", "1~x", "~"] {
        let query = UserQuery {
            after: Some(bad.to_owned()),
            ..Office::query("")
        };
        assert!(
            matches!(
                office.app.users().list(&office.actor, query).await,
                Err(Error::Invalid(_))
            ),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_row_tells_the_fullest_limit_and_what_was_spent() {
    let office = Office::new().await;
    let row = async || {
        let page = office.app.users().list(&office.actor, Office::query("")).await.unwrap();
        (page.rows[0].fullest_percent, page.rows[0].spent_month.nanos())
    };
    office.app.talk(7, "hi", "fine").await;
    assert_eq!(row().await, (None, 30_000), "nothing is limited");
    office.app.limit(LimitKind::MessagesPerDay, 4).await;
    office.app.limit(LimitKind::MoneyPerMonth, 1_000_000).await;
    assert_eq!(row().await.0, Some(25));
    office.app.limit(LimitKind::MoneyPerMonth, 40_000).await;
    assert_eq!(row().await.0, Some(75));
    office.app.limit(LimitKind::TokensPerDay, 0).await;
    assert_eq!(row().await.0, Some(100));
}

#[tokio::test]
async fn a_page_about_a_user_shows_everything_and_hides_the_trail_from_who_may_not_read_it() {
    let office = Office::new().await;
    office.app.limit(LimitKind::TokensPerDay, 1000).await;
    let known = office.app.talk(7, "hi", "fine").await;
    office
        .app
        .users()
        .block(&office.actor, known.user, "spam".parse().unwrap())
        .await
        .unwrap();
    let detail = office
        .app
        .users()
        .get(&office.actor, known.user)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((detail.telegram_id, detail.plan.as_str()), (Some(7), "free"));
    assert_eq!(detail.blocked.unwrap().reason, "spam");
    let tokens = detail
        .limits
        .iter()
        .find(|bar| bar.kind == LimitKind::TokensPerDay)
        .unwrap();
    assert_eq!((tokens.used, tokens.reserved, tokens.limit), (Some(20), 0, Some(1000)));
    assert_eq!(
        detail.conversations.iter().map(|one| one.messages).collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(detail.staff_actions.len(), 1);

    let support = office.app.staff(domain::Role::Support).await;
    let support = office.app.actor(support, domain::Permission::ReadUsers).await.unwrap();
    assert!(
        office
            .app
            .users()
            .get(&support, known.user)
            .await
            .unwrap()
            .unwrap()
            .staff_actions
            .is_empty()
    );
    assert!(
        office
            .app
            .users()
            .get(&support, UserId(uuid::Uuid::now_v7()))
            .await
            .unwrap()
            .is_none()
    );
    assert!(office.app.user(7).await.blocked);
}

#[tokio::test]
async fn a_long_transcript_is_read_page_by_page_backwards() {
    let office = Office::new().await;
    let known = office.app.user(7).await;
    office
        .app
        .test
        .run(&format!(
            "INSERT INTO messages (id, created_at, conversation_id, author, text, tokens, in_context, job_id)
             SELECT gen_random_uuid(), now() + n / 4 * interval '1 ms', '{}', 'user', n, 1, true, gen_random_uuid()
             FROM generate_series(1, 250) AS n",
            known.conversation
        ))
        .await;
    let (mut older, mut texts, mut sizes) = (None, BTreeSet::new(), Vec::new());
    loop {
        let page = office
            .app
            .conversations()
            .transcript(&office.actor, known.conversation, older.take())
            .await
            .unwrap()
            .unwrap();
        sizes.push(page.messages.len());
        assert_eq!(page.conversation.messages, 250);
        assert!(page.messages.is_sorted_by_key(|message| (message.at, message.id)));
        for message in page.messages {
            assert!(texts.insert(message.text), "a message was shown twice");
        }
        match page.older {
            Some(key) => older = Some(key),
            None => break,
        }
    }
    assert_eq!((texts.len(), sizes), (250, vec![100, 100, 50]));
    assert_eq!(
        office.app.test.count("audit WHERE action = 'conversation.read'").await,
        3
    );
}

#[tokio::test]
async fn the_overview_sums_up_today() {
    let office = Office::new().await;
    office.app.talk(7, "hi", "fine").await;
    office.app.talk(8, "hi", "fine").await;
    office.app.talk(8, "hi", "fine").await;
    let today = office.app.overview().today(&office.actor).await.unwrap();
    assert_eq!((today.messages, today.active_users, today.tokens), (3, 2, 60));
    assert_eq!(
        (today.cost.nanos(), today.cost_month.nanos(), today.errors),
        (90_000, 90_000, 0)
    );
    assert_eq!(today.hours.len(), 24);
    assert_eq!(today.hours.iter().map(|hour| hour.messages).sum::<i64>(), 3);
}
