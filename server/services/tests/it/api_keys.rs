use chrono::TimeDelta;
use domain::{
    ApiScope, Lifetime, Permission, Role,
    views::api_keys::{KeyOrder, KeyQuery, KeyState, KeyStates},
};
use futures::{StreamExt, stream::FuturesUnordered};
use services::{Error, KeyWish, Services};

use crate::app::App;

fn wish(name: &str) -> KeyWish {
    KeyWish {
        name: name.parse().unwrap(),
        scopes: vec![ApiScope::Chat, ApiScope::Models],
        models: Some(vec!["tester".to_owned()]),
        lifetime: Lifetime::Month,
    }
}

#[tokio::test]
async fn a_key_opens_what_it_was_made_for_and_is_stored_nowhere() {
    let app = App::new().await;
    let owner = app.owner().await;
    let fresh = app.api_keys().create(&owner, wish("search")).await.unwrap();
    let key = app
        .api_keys()
        .authenticate(&fresh.secret.clone().into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((key.id, key.name.as_str()), (fresh.id, "search"));
    assert!(key.may(ApiScope::Chat) && !key.may(ApiScope::Images));
    assert!(key.may_use("tester") && !key.may_use("another"));
    // Neither the table nor the trail holds it.
    let (tables, rest) = (
        "(SELECT k::text AS row FROM api_keys k UNION ALL SELECT a::text FROM audit a) AS all_rows",
        &fresh.secret[12..],
    );
    assert_eq!(app.test.count(&format!("{tables} WHERE row LIKE '%{rest}%'")).await, 0);
    assert_eq!(
        app.test
            .count("audit WHERE action = 'api_key.create' AND target_name = 'search'")
            .await,
        1
    );
    let listed = app.api_keys().list(&owner, KeyQuery::default()).await.unwrap().rows;
    assert!(fresh.secret.starts_with(&listed[0].prefix) && listed[0].prefix.len() == 9);
    assert!(!format!("{fresh:?}").contains(rest));
}

#[tokio::test]
async fn a_key_that_is_unknown_revoked_or_expired_opens_nothing() {
    let app = App::new().await;
    let owner = app.owner().await;
    let keys = app.api_keys();
    let (one, two) = (
        keys.create(&owner, wish("one")).await.unwrap(),
        keys.create(&owner, wish("two")).await.unwrap(),
    );
    let opens = async |secret: &str| keys.authenticate(&secret.to_owned().into()).await.unwrap().is_some();
    assert!(opens(&one.secret).await && opens(&two.secret).await);
    for wrong in [
        "",
        "bd-",
        &one.secret[..45],
        &format!("{}A", &one.secret[..45]),
        &format!("{} ", one.secret),
    ] {
        assert!(wrong == one.secret || !opens(wrong).await, "{wrong} opened");
    }
    keys.revoke(&owner, one.id).await.unwrap();
    assert!(!opens(&one.secret).await, "at once where it was revoked");
    assert!(matches!(keys.revoke(&owner, one.id).await, Err(Error::Conflict(_))));
    app.clock.advance(TimeDelta::days(30));
    assert!(!opens(&two.secret).await);
    let states: Vec<KeyState> = keys
        .list(&owner, KeyQuery::default())
        .await
        .unwrap()
        .rows
        .iter()
        .map(|key| key.state(app.now()))
        .collect();
    assert_eq!(states, [KeyState::Expired, KeyState::Revoked]);
    assert_eq!(app.test.count("audit WHERE action = 'api_key.revoke'").await, 1);
}

#[tokio::test]
async fn a_key_revoked_elsewhere_is_refused_within_seconds() {
    let app = App::new().await;
    let owner = app.owner().await;
    let other = app.replica(&app.secret);
    let fresh = app.api_keys().create(&owner, wish("one")).await.unwrap();
    let secret = fresh.secret.clone().into();
    assert!(other.api_keys().authenticate(&secret).await.unwrap().is_some());
    app.api_keys().revoke(&owner, fresh.id).await.unwrap();
    let refused = async {
        while other.api_keys().authenticate(&secret).await.unwrap().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), refused)
        .await
        .unwrap();
}

#[tokio::test]
async fn when_a_key_was_used_is_noted_once_a_minute() {
    let app = App::new().await;
    let fresh = app.api_keys().create(&app.owner().await, wish("one")).await.unwrap();
    let start = app.now();
    for seconds in [0, 30, 59, 61, 5] {
        app.api_keys()
            .used(&[fresh.id], start + TimeDelta::seconds(seconds))
            .await
            .unwrap();
    }
    let used: chrono::DateTime<chrono::Utc> = app.test.one("SELECT last_used_at FROM api_keys").await;
    assert_eq!((used - start).num_seconds(), 61);
}

#[tokio::test]
async fn a_key_waits_sealed_for_the_page_that_shows_it() {
    let app = App::new().await;
    let fresh = app.api_keys().create(&app.owner().await, wish("one")).await.unwrap();
    let sealed = app.api_keys().conceal(&fresh).unwrap();
    assert!(!sealed.contains(&fresh.secret[3..20]));
    assert_eq!(app.api_keys().reveal(&sealed), Some(fresh));
    assert_eq!(app.api_keys().reveal("x.y"), None);
}

#[tokio::test]
async fn nothing_chosen_is_no_key_and_only_owners_and_admins_see_them() {
    let app = App::new().await;
    let owner = app.owner().await;
    for bad in [
        KeyWish {
            scopes: Vec::new(),
            ..wish("x")
        },
        KeyWish {
            models: Some(Vec::new()),
            ..wish("x")
        },
    ] {
        assert!(matches!(
            app.api_keys().create(&owner, bad).await,
            Err(Error::Invalid(_))
        ));
    }
    for (role, may) in [(Role::Admin, true), (Role::Support, false), (Role::Viewer, false)] {
        let id = app.staff(role).await;
        assert_eq!(app.actor(id, Permission::ReadKeys).await.is_ok(), may, "{role}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_strangers_who_come_together_only_some_are_looked_up() {
    let app = App::new().await;
    let fresh = app.api_keys().create(&app.owner().await, wish("one")).await.unwrap();
    let mut lock = app.test.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE api_keys").execute(&mut *lock).await.unwrap();
    let strangers = (0..12).map(|stranger| {
        let (services, secret) = (Services::clone(&app), format!("bd-{stranger:043}"));
        async move { services.api_keys().authenticate(&secret.into()).await }
    });
    let mut strangers: FuturesUnordered<_> = strangers.map(tokio::spawn).collect();
    for _ in 0..8 {
        let refused = strangers.next().await.unwrap().unwrap();
        assert!(
            matches!(refused, Err(Error::Throttled { retry_after_s: 1 })),
            "{refused:?}"
        );
    }
    let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    assert_eq!(app.test.count(waiting).await, 4);
    lock.rollback().await.unwrap();
    while let Some(unknown) = strangers.next().await {
        assert!(unknown.unwrap().unwrap().is_none());
    }
    assert!(
        app.api_keys()
            .authenticate(&fresh.secret.into())
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn keys_are_found_by_name_beginning_and_state_and_each_stands_on_one_page() {
    let app = App::new().await;
    let owner = app.owner().await;
    let keys = app.api_keys();
    let now = app.now();
    // All of one moment; every third was never used, and names come thrice.
    app.test
        .run(&format!(
            "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by)
             SELECT md5(n::text)::uuid, 'Team ' || n / 3 || '~', 'bd-' || lpad(n::text, 6, '0'), decode(md5(n::text) || md5(n::text), 'hex'),
                    '{{chat}}', '{now}', 'a', CASE n % 4 WHEN 0 THEN NULL ELSE timestamptz '{now}' + (n % 4 - 2) * interval '3 days 1 minute' END,
                    CASE WHEN n % 3 > 0 THEN timestamptz '{now}' - n * interval '1 hour' END,
                    CASE WHEN n % 10 = 0 THEN timestamptz '{now}' END, CASE WHEN n % 10 = 0 THEN 'b' END
             FROM generate_series(1, 120) AS n"
        ))
        .await;
    let all = async |query: KeyQuery| {
        let (mut rows, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let query = KeyQuery { after, ..query.clone() };
            let page = keys.list(&owner, query).await.unwrap();
            rows.extend(page.rows);
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => return (rows, pages),
            }
        }
    };
    for order in KeyOrder::ALL {
        let (rows, pages) = all(KeyQuery {
            order,
            ..KeyQuery::default()
        })
        .await;
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|key| key.id).collect();
        assert_eq!((rows.len(), ids.len(), pages), (120, 120, 3), "{order:?}");
        match order {
            KeyOrder::Created => assert!(rows.is_sorted_by_key(|key| std::cmp::Reverse((key.created, key.id)))),
            KeyOrder::Name => assert!(rows[..2].iter().all(|key| key.name.starts_with("Team 0~")), "{rows:?}"),
            // None is less than any.
            KeyOrder::Used => assert!(rows.is_sorted_by_key(|key| std::cmp::Reverse(key.last_used))),
        }
    }
    let mut counted = 0;
    for (states, fits) in [
        (KeyStates::Active, KeyState::Good),
        (KeyStates::Expired, KeyState::Expired),
        (KeyStates::Revoked, KeyState::Revoked),
    ] {
        let (rows, _) = all(KeyQuery {
            states,
            ..KeyQuery::default()
        })
        .await;
        assert!(rows.iter().all(|key| key.state(now) == fits), "{states:?}");
        counted += rows.len();
    }
    assert_eq!(counted, 120);
    let (soon, _) = all(KeyQuery {
        states: KeyStates::Expiring,
        ..KeyQuery::default()
    })
    .await;
    assert!(!soon.is_empty() && soon.iter().all(|key| key.ends_soon(now)));
    let found = async |search: &str| {
        let search = search.to_owned();
        all(KeyQuery {
            search,
            ..KeyQuery::default()
        })
        .await
        .0
        .len()
    };
    assert_eq!(
        [
            found("TEAM 7~").await,
            found("bd-000042").await,
            found(" bd-000042whatever was found ").await,
            found("bd-00010").await,
            found("%").await,
            found("nobody").await
        ],
        [3, 1, 1, 10, 0, 0]
    );
    for bad in [
        KeyQuery {
            after: Some("1~2".to_owned()),
            ..KeyQuery::default()
        },
        // Of another order.
        KeyQuery {
            after: Some(format!("a name~{}", uuid::Uuid::nil())),
            ..KeyQuery::default()
        },
        KeyQuery {
            search: "x".repeat(201),
            ..KeyQuery::default()
        },
    ] {
        assert!(matches!(keys.list(&owner, bad).await, Err(Error::Invalid(_))));
    }
}
