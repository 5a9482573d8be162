use std::collections::{BTreeSet, HashSet};

use chrono::TimeDelta;
use domain::{
    LimitKind, UserId,
    views::{AuditQuery, UserQuery, UserStatus},
};
use gateway::Finish;
use services::{Absorbed, Actor, Change, Error, Incoming, Known, Reply};

use crate::app::{App, FREE, answer, complete, rich};

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
        .get(&office.actor, known.user, None)
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
        detail.conversations.rows.iter().map(|one| one.id).collect::<Vec<_>>(),
        [known.conversation]
    );
    assert_eq!(detail.staff_actions.len(), 1);

    let support = office.app.staff(domain::Role::Support).await;
    let support = office.app.actor(support, domain::Permission::ReadUsers).await.unwrap();
    assert!(
        office
            .app
            .users()
            .get(&support, known.user, None)
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
            .get(&support, UserId(uuid::Uuid::now_v7()), None)
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

#[tokio::test]
async fn failures_do_not_count_as_answers_and_who_met_one_was_there() {
    let office = Office::new().await;
    office.app.talk(7, "hi", "fine").await;
    let (job, mut incoming) = office.app.job(8, 8, "hi").await;
    // Whatever a failure took would drown the one real answer.
    incoming.received_at -= TimeDelta::minutes(5);
    let (known, question) = office.app.ask(&job, &incoming).await;
    let failed = answer("", Finish::Failed, (10, 0), None);
    let said = [rich("It failed")];
    assert!(
        office
            .app
            .chats()
            .settle(&job, &incoming, &known, &question, &failed, &said)
            .await
            .unwrap()
    );
    // Somebody whom a limit refused has no line in the ledger.
    office.app.limit(LimitKind::MessagesPerDay, 0).await;
    let (job, incoming) = office.app.job(9, 9, "hi").await;
    let known = office.app.chats().meet(&incoming).await.unwrap();
    let refused = Reply {
        text: "No",
        parts: &[],
        code: Some(domain::ErrorCode::LimitDay),
        change: Change::None,
    };
    assert!(
        office
            .app
            .chats()
            .reply(&job, &incoming, &known, refused)
            .await
            .unwrap()
    );
    let today = office.app.overview().today(&office.actor).await.unwrap();
    assert_eq!(today.active_users, 3);
    assert!(today.p95_ms.unwrap() < 60_000, "{:?}", today.p95_ms);
    assert_eq!(today.hours.iter().map(|hour| hour.messages).sum::<i64>(), 1);
    assert_eq!(today.bots.iter().map(|bot| bot.messages_today).sum::<i64>(), 1);
}

/// One question of `user` in a group and its answer.
async fn ask_in_group(app: &App, user: i64, group: i64, question: &str) -> Known {
    let (job, incoming) = app.job(user, group, question).await;
    let (known, asked) = app.ask(&job, &incoming).await;
    let answer = complete(&format!("to {user}"), 10, 10);
    let bodies = [rich(&answer.text)];
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &asked, &answer, &bodies)
            .await
            .unwrap()
    );
    assert!(app.queue().end(&job, services::Ended::Done).await.unwrap());
    app.clock.advance(TimeDelta::seconds(1));
    known
}

#[tokio::test]
async fn in_a_group_each_speaker_has_their_name_and_the_conversation_is_listed_with_all_of_them() {
    let office = Office::new().await;
    let app = &office.app;
    let anna = ask_in_group(app, 7, -100, "I am Anna").await;
    let boris = ask_in_group(app, 8, -100, "I am Boris").await;
    let carl = app.user(9).await;
    assert_eq!(anna.conversation, boris.conversation);
    let read = async || {
        let page = app
            .conversations()
            .transcript(&office.actor, anna.conversation, None)
            .await;
        page.unwrap().unwrap()
    };
    let said = |transcript: domain::views::Transcript| -> Vec<(String, Option<UserId>)> {
        let speaker = |message: domain::views::TranscriptMessage| (message.text, message.speaker.map(|one| one.id));
        transcript.messages.into_iter().map(speaker).collect()
    };
    let transcript = read().await;
    assert!(transcript.is_group);
    let expected = [
        ("I am Anna".to_owned(), Some(anna.user)),
        ("to 7".to_owned(), None),
        ("I am Boris".to_owned(), Some(boris.user)),
        ("to 8".to_owned(), None),
    ];
    assert_eq!(said(transcript), expected);
    // What the release before has kept is told apart by the ledger.
    app.test.run("UPDATE messages SET user_id = NULL").await;
    assert_eq!(said(read().await), expected);

    let listed = async |user: UserId| {
        let detail = app.users().get(&office.actor, user, None).await.unwrap().unwrap();
        let readings = detail
            .staff_actions
            .into_iter()
            .map(|row| row.action)
            .collect::<Vec<_>>();
        (detail.conversations.rows.len(), readings)
    };
    // Both were read, twice; somebody else was not.
    for user in [anna.user, boris.user] {
        assert_eq!(listed(user).await, (1, vec!["conversation.read".to_owned(); 2]));
    }
    assert_eq!(listed(carl.user).await, (1, vec![]));
}

#[tokio::test]
async fn what_was_answered_together_keeps_its_speakers() {
    let office = Office::new().await;
    let app = &office.app;
    let boris = app.user(8).await;
    let (first, second) = (app.update(7, -100, "first"), app.update(8, -100, "second"));
    app.intake().accept(app.bot, vec![first, second]).await.unwrap();
    let job = app
        .queue()
        .claim("worker", 9, services::Which::Ordinary, &[])
        .await
        .unwrap()
        .remove(0);
    let incoming = app.incoming(7, -100, "first");
    let anna = app.chats().meet(&incoming).await.unwrap();
    let waiting = app.chats().waiting(&incoming.lane()).await.unwrap();
    let absorbed = waiting.iter().map(|(job, _)| Absorbed {
        job: *job,
        user_external_id: 8,
        text: "second".to_owned(),
    });
    let reply = Reply {
        text: "Both too late",
        parts: &[],
        code: None,
        change: Change::Absorb(absorbed.collect()),
    };
    assert!(app.chats().reply(&job, &incoming, &anna, reply).await.unwrap());
    let page = app
        .conversations()
        .transcript(&office.actor, anna.conversation, None)
        .await;
    let messages = page.unwrap().unwrap().messages;
    let speakers: BTreeSet<_> = messages
        .into_iter()
        .map(|message| (message.text, message.speaker.map(|one| one.id)))
        .collect();
    let expected = [
        ("first", Some(anna.user)),
        ("second", Some(boris.user)),
        ("Both too late", None),
    ];
    assert_eq!(speakers, expected.map(|(text, user)| (text.to_owned(), user)).into());
}

#[tokio::test]
async fn readings_are_among_what_staff_did_with_a_person_and_found_by_them() {
    let office = Office::new().await;
    let app = &office.app;
    let (anna, boris) = (app.talk(7, "hi", "fine").await, app.talk(8, "hi", "fine").await);
    app.users()
        .block(&office.actor, anna.user, "spam".parse().unwrap())
        .await
        .unwrap();
    for known in [&anna, &boris] {
        app.conversations()
            .transcript(&office.actor, known.conversation, None)
            .await
            .unwrap();
    }
    let detail = app.users().get(&office.actor, anna.user, None).await.unwrap().unwrap();
    let actions: Vec<&str> = detail.staff_actions.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["conversation.read", "user.block"]);
    let found = async |target: &str, from: &str, to: &str| {
        let query = AuditQuery {
            target: Some(target.to_owned()),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            ..AuditQuery::default()
        };
        let page = app.audit().list(&office.actor, query).await?;
        Ok::<_, Error>(page.rows.into_iter().map(|row| row.action).collect::<Vec<_>>())
    };
    let (read, block) = ("conversation.read", "user.block");
    let day = |days: i64| (app.now() + TimeDelta::days(days)).format("%Y-%m-%d").to_string();
    let (yesterday, today, tomorrow) = (day(-1), day(0), day(1));
    assert_eq!(found(&anna.user.to_string(), "", "").await.unwrap(), [read, block]);
    assert_eq!(found("PERSON 8", "", "").await.unwrap(), [read]);
    assert_eq!(found("person", &today, &tomorrow).await.unwrap(), [read, read, block]);
    assert_eq!(found("person", &tomorrow, "").await.unwrap(), Vec::<String>::new());
    assert_eq!(found("person", "", &yesterday).await.unwrap(), Vec::<String>::new());
    for bad in ["yesterday", "2026-13-01", "+262142-12-31"] {
        assert!(matches!(found("", bad, "").await, Err(Error::Invalid(_))), "{bad}");
        assert!(matches!(found("", "", bad).await, Err(Error::Invalid(_))), "{bad}");
    }
}

#[tokio::test]
async fn every_conversation_of_a_person_is_reached_page_by_page() {
    let office = Office::new().await;
    let known = office.app.user(7).await;
    office
        .app
        .test
        .run(&format!(
            "INSERT INTO conversations (id, chat_id, user_id, started_at, last_at, ended_at)
             SELECT gen_random_uuid(), '{}', '{}', now(), now() - n / 3 * interval '1 hour', now() FROM generate_series(1, 49) AS n",
            known.chat, known.user
        ))
        .await;
    let (mut talks, mut seen, mut sizes) = (None, HashSet::new(), Vec::new());
    loop {
        let detail = office.app.users().get(&office.actor, known.user, talks.take()).await;
        let page = detail.unwrap().unwrap().conversations;
        sizes.push(page.rows.len());
        for row in page.rows {
            assert!(seen.insert(row.id), "a conversation was shown twice");
        }
        match page.next {
            Some(next) => talks = Some(next),
            None => break,
        }
    }
    assert_eq!((seen.len(), sizes), (50, vec![20, 20, 10]));
}
