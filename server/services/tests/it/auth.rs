use chrono::TimeDelta;
use domain::{Email, Permission, Role};
use futures::future::join_all;
use services::{Actor, Error, Origin};

use crate::app::{App, PASSWORD, password};

fn email(text: &str) -> Email {
    text.parse().unwrap()
}

fn from(ip: &str) -> Origin {
    Origin {
        ip: Some(ip.to_owned()),
        ..Origin::default()
    }
}

#[tokio::test]
async fn a_password_is_kept_as_an_argon2id_hash_of_the_chosen_work_factor() {
    let app = App::new().await;
    app.staff(Role::Owner).await;
    app.staff(Role::Viewer).await;
    let hashes: Vec<String> = app.test.column("SELECT password_hash FROM staff").await;
    for hash in &hashes {
        assert!(hash.starts_with("$argon2id$v=19$m=47104,t=2,p=1$"), "{hash}");
    }
    assert_ne!(hashes[0], hashes[1], "the same password without a salt");
    assert_eq!(
        app.test
            .count(&format!("staff WHERE staff::text LIKE '%{PASSWORD}%'"))
            .await,
        0
    );
}

#[tokio::test]
async fn wrong_and_unknown_are_refused_alike_and_the_right_one_is_let_in() {
    let app = App::new().await;
    let id = app.staff(Role::Owner).await;
    let (auth, ip) = (app.auth(), from("192.0.2.7"));
    let wrong = auth
        .sign_in(
            &email("owner@example.org"),
            &password("wrong horse battery"),
            ip.clone(),
        )
        .await;
    let unknown = auth
        .sign_in(&email("nobody@example.org"), &password(PASSWORD), ip.clone())
        .await;
    let (wrong, unknown) = (wrong.unwrap_err(), unknown.unwrap_err());
    assert!(matches!((&wrong, &unknown), (Error::BadLogin, Error::BadLogin)));
    assert_eq!(domain::AppError::from(wrong), domain::AppError::from(unknown));
    assert_eq!(
        auth.sign_in(&email(" Owner@Example.ORG "), &password(PASSWORD), ip)
            .await
            .unwrap(),
        id
    );
    assert_eq!(app.auth().me(id).await.unwrap().unwrap().role, Role::Owner);
}

/// Seconds to wait, of an attempt with the wrong password.
async fn refused(app: &App, who: &str, ip: &str) -> Option<u64> {
    match app
        .auth()
        .sign_in(&email(who), &password("wrong horse battery"), from(ip))
        .await
    {
        Err(Error::BadLogin) => None,
        Err(Error::Throttled { retry_after_s }) => Some(retry_after_s),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn attempts_of_a_client_on_an_account_slow_down_and_are_forgotten() {
    let app = App::new().await;
    app.staff(Role::Owner).await;
    let (who, ip) = ("owner@example.org", "192.0.2.99");
    let sign_in = async |ip: &str| app.auth().sign_in(&email(who), &password(PASSWORD), from(ip)).await;
    for _ in 0..5 {
        assert_eq!(refused(&app, who, ip).await, None);
    }
    // Each further attempt waits twice as long as the one before it.
    for wait in [2, 4, 8] {
        assert_eq!(refused(&app, who, ip).await, Some(wait));
        app.clock.advance(TimeDelta::seconds(wait.cast_signed() - 1));
        assert_eq!(refused(&app, who, ip).await, Some(1));
        app.clock.advance(TimeDelta::seconds(1));
        assert_eq!(refused(&app, who, ip).await, None);
    }
    // Even the right password has to wait, or guessing would go on. Not so from elsewhere: a stranger locks nobody out.
    let right = sign_in(ip).await;
    assert!(matches!(right, Err(Error::Throttled { .. })), "{right:?}");
    sign_in("203.0.113.1").await.unwrap();

    // It also forgets what was counted for the account.
    for _ in 0..5 {
        assert_eq!(refused(&app, who, ip).await, None, "a success does not forget");
    }
    assert!(refused(&app, who, ip).await.is_some());
    app.clock.advance(TimeDelta::hours(1) + TimeDelta::seconds(1));
    assert_eq!(refused(&app, who, ip).await, None, "an hour ago is not forgotten");
}

#[tokio::test]
async fn an_account_is_slowed_down_for_all_only_by_many_clients() {
    let app = App::new().await;
    let who = "owner@example.org";
    app.staff(Role::Owner).await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        for _ in 0..5 {
            assert_eq!(refused(&app, who, client).await, None);
        }
        // What a client tries beyond its own attempts is not counted for everybody.
        app.clock.advance(TimeDelta::seconds(3));
        assert_eq!(refused(&app, who, client).await, None);
    }
    let all = "SELECT failures FROM sign_in_failures WHERE key LIKE 'email:% from all'";
    assert_eq!(app.test.one::<i32>(all).await, 10);
    // As if 17 more had done the same, and one had an attempt left.
    app.test
        .run("UPDATE sign_in_failures SET failures = 99 WHERE key LIKE 'email:% from all'")
        .await;
    assert_eq!(refused(&app, who, "203.0.113.1").await, None);
    assert_eq!(refused(&app, who, "203.0.113.1").await, Some(2));
    assert_eq!(refused(&app, who, "203.0.113.2").await, Some(2));
    // Another account is not held up by it, and the command line opens the way again.
    assert_eq!(refused(&app, "else@example.org", "203.0.113.1").await, None);
    let (auth, new) = (app.auth(), password("a different horse"));
    auth.reset_password(&Actor::system("cli"), &email(who), new.clone())
        .await
        .unwrap();
    auth.sign_in(&email(who), &new, from("192.0.2.1")).await.unwrap();
}

#[tokio::test]
async fn one_client_that_tries_many_accounts_slows_down_whatever_it_succeeds_with() {
    let app = App::new().await;
    app.staff(Role::Viewer).await;
    let own = || async {
        let (who, right) = (email("viewer@example.org"), password(PASSWORD));
        app.auth().sign_in(&who, &right, from("192.0.2.1")).await
    };
    for n in 0..20 {
        assert_eq!(refused(&app, &format!("guess{n}@example.org"), "192.0.2.1").await, None);
        if n == 18 {
            own().await.unwrap();
        }
    }
    assert_eq!(refused(&app, "guess20@example.org", "192.0.2.1").await, Some(2));
    assert_eq!(refused(&app, "guess20@example.org", "192.0.2.2").await, None);
    // In the new kind of address, a network is one client.
    for n in 0..20 {
        let ip = format!("2001:db8::{n}:1");
        assert_eq!(refused(&app, &format!("guess{n}@example.org"), &ip).await, None);
    }
    assert_eq!(refused(&app, "guess20@example.org", "2001:db8::ffff").await, Some(2));
    assert_eq!(refused(&app, "guess20@example.org", "2001:db8:0:1::ffff").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_guesses_at_once_are_not_all_heard() {
    let app = App::new().await;
    app.staff(Role::Owner).await;
    let heard = join_all((0..24).map(|_| refused(&app, "owner@example.org", "192.0.2.1"))).await;
    let heard = heard.into_iter().filter(Option::is_none).count();
    assert!(heard <= 8, "{heard} guesses of 24 were heard in one moment");
}

#[tokio::test]
async fn the_link_for_the_first_owner_works_once() {
    let app = App::new().await;
    let auth = app.auth();
    let token = auth.issue_setup_token().await.unwrap().unwrap();
    assert_eq!(
        app.test
            .count(&format!("setup_tokens WHERE setup_tokens::text LIKE '%{token}%'"))
            .await,
        0
    );
    let redeem = async |token: &str, name: &str, who: &str| {
        app.auth()
            .redeem_setup(token, name, email(who), password(PASSWORD), from("192.0.2.1"))
            .await
    };
    assert!(redeem("guessed", "Eve", "eve@example.org").await.is_err());
    // A mistake in the form does not use the link up.
    assert!(matches!(
        redeem(&token, &"x".repeat(65), "ann@example.org").await,
        Err(Error::Invalid(_))
    ));
    let id = redeem(&token, "Ann", "ann@example.org").await.unwrap();
    assert_eq!(app.auth().me(id).await.unwrap().unwrap().role, Role::Owner);
    assert!(matches!(
        redeem(&token, "Eve", "eve@example.org").await,
        Err(Error::Conflict(_))
    ));
    assert_eq!(auth.issue_setup_token().await.unwrap(), None, "there is an owner");
    assert_eq!(app.test.count("staff").await, 1);
    assert_eq!(app.test.count("audit WHERE action = 'staff.create'").await, 1);
}

#[tokio::test]
async fn a_link_expires_and_only_the_last_one_works() {
    let app = App::new().await;
    let auth = app.auth();
    let first = auth.issue_setup_token().await.unwrap().unwrap();
    let second = auth.issue_setup_token().await.unwrap().unwrap();
    assert!(matches!(try_link(&app, &first).await, Err(Error::Conflict(_))));
    app.clock.advance(TimeDelta::hours(24));
    assert!(
        matches!(try_link(&app, &second).await, Err(Error::Conflict(_))),
        "it is a day old"
    );
    let third = auth.issue_setup_token().await.unwrap().unwrap();
    app.clock.advance(TimeDelta::hours(24) - TimeDelta::seconds(1));
    try_link(&app, &third).await.unwrap();
}

async fn try_link(app: &App, token: &str) -> Result<domain::StaffId, Error> {
    app.auth()
        .redeem_setup(
            token,
            "Ann",
            email("ann@example.org"),
            password(PASSWORD),
            Origin::default(),
        )
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_who_open_the_same_link_do_not_both_become_owner() {
    let app = App::new().await;
    let token = app.auth().issue_setup_token().await.unwrap().unwrap();
    let try_it = |n: i32| {
        let (app, token) = (&app, &token);
        async move {
            let who = email(&format!("ann{n}@example.org"));
            app.auth()
                .redeem_setup(token, "Ann", who, password(PASSWORD), Origin::default())
                .await
        }
    };
    let all = join_all((0..4).map(try_it)).await;
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_start_together_leave_one_link_and_two_links_make_one_owner() {
    let app = App::new().await;
    let issued = join_all((0..8).map(|_| async { app.auth().issue_setup_token().await.unwrap().unwrap() })).await;
    assert_eq!(app.test.count("setup_tokens WHERE used_at IS NULL").await, 1);

    // As a release before may have left them.
    app.test.run("DELETE FROM setup_tokens").await;
    for token in &issued {
        let hash = blake3::hash(token.as_bytes()).to_hex();
        app.test
            .run(&format!(
                "INSERT INTO setup_tokens VALUES (decode('{hash}', 'hex'), now() + interval '1 hour', NULL)"
            ))
            .await;
    }
    let redeem = |(n, token): (usize, &String)| {
        let (app, token) = (&app, token.clone());
        async move {
            let who = email(&format!("ann{n}@example.org"));
            app.auth()
                .redeem_setup(&token, "Ann", who, password(PASSWORD), Origin::default())
                .await
        }
    };
    let all = join_all(issued.iter().enumerate().map(redeem)).await;
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1, "{all:?}");
    assert_eq!(app.test.count("staff").await, 1);
}

#[tokio::test]
async fn replicas_that_start_with_an_owner_in_their_settings_make_one() {
    let app = App::new().await;
    let make = |replica: services::Services| async move {
        replica
            .setup()
            .owner_from_settings(email("ann@example.org"), PASSWORD.to_owned().into())
            .await
    };
    let (one, two) = tokio::join!(make(app.replica(&app.secret)), make(app.replica(&app.secret)));
    assert_eq!(u8::from(one.unwrap()) + u8::from(two.unwrap()), 1);
    assert!(
        !make(app.replica(&app.secret)).await.unwrap(),
        "a second start changes nothing"
    );
    assert!(app.setup().state().await.unwrap().has_owner);
}

#[tokio::test]
async fn every_role_may_exactly_what_its_set_of_scopes_says() {
    let app = App::new().await;
    for role in Role::ALL {
        let id = app.staff(role).await;
        for permission in Permission::ALL {
            match app.actor(id, *permission).await {
                Ok(actor) => assert!(
                    role.allows(*permission) && actor.may(*permission),
                    "{role} may {permission}"
                ),
                Err(Error::Forbidden(missing)) => assert!(
                    !role.allows(*permission) && missing == *permission,
                    "{role} {permission}"
                ),
                Err(other) => panic!("{role} {permission}: {other}"),
            }
        }
        // Taking a role away works at once, for whoever is signed in.
        app.test
            .run(&format!("UPDATE staff SET role = 'viewer' WHERE id = '{id}'"))
            .await;
        assert!(matches!(
            app.actor(id, Permission::ReadConversations).await,
            Err(Error::Forbidden(_))
        ));
    }
    let nobody = app
        .auth()
        .authorise(None, Permission::ReadOverview, Origin::default())
        .await;
    assert!(matches!(nobody, Err(Error::SignedOut)), "{nobody:?}");
}

#[tokio::test]
async fn staff_who_are_disabled_are_signed_out() {
    let app = App::new().await;
    let id = app.staff(Role::Admin).await;
    app.actor(id, Permission::ReadUsers).await.unwrap();
    app.test.run("UPDATE staff SET disabled_at = now()").await;
    assert!(matches!(
        app.actor(id, Permission::ReadUsers).await,
        Err(Error::SignedOut)
    ));
    assert_eq!(app.auth().me(id).await.unwrap(), None);
    let back = app
        .auth()
        .sign_in(&email("admin@example.org"), &password(PASSWORD), Origin::default())
        .await;
    assert!(matches!(back, Err(Error::BadLogin)), "{back:?}");
    let reset = app
        .auth()
        .reset_password(&Actor::system("cli"), &email("admin@example.org"), password(PASSWORD))
        .await;
    assert!(matches!(reset, Err(Error::NotFound(_))), "{reset:?}");
}

#[tokio::test]
async fn a_reset_password_replaces_the_old_one() {
    let app = App::new().await;
    app.staff(Role::Owner).await;
    let who = email("owner@example.org");
    app.auth()
        .reset_password(&Actor::system("cli"), &who, password("a different horse"))
        .await
        .unwrap();
    assert_eq!(refused(&app, "owner@example.org", "192.0.2.1").await, None);
    assert!(
        app.auth()
            .sign_in(&who, &password(PASSWORD), Origin::default())
            .await
            .is_err()
    );
    app.auth()
        .sign_in(&who, &password("a different horse"), Origin::default())
        .await
        .unwrap();
}
