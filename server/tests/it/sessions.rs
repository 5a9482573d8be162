//! How long somebody stays signed in.

use test_support::app::{PATIENCE, eventually};

use crate::app;

#[tokio::test]
async fn a_visit_prolongs_a_session() {
    let app = app().start().await;
    let owner = app.sign_in("owner").await;
    // As if the last visit had been six days ago.
    let changed = app
        .sql_execute(
            "UPDATE sessions SET expires_at = now() + interval '1 day', data = jsonb_set(data, '{visited}', '0')",
        )
        .await;
    assert_eq!(changed, 1);
    assert!(owner.page("/users").await.status.is_success());
    let left = "SELECT count(*) AS n FROM sessions WHERE expires_at > now() + interval '6 days'";
    assert_eq!(app.count(left).await, 1);
    // Not written for every page.
    app.sql_execute("UPDATE sessions SET expires_at = now() + interval '1 day'")
        .await;
    assert!(owner.page("/users").await.status.is_success());
    assert_eq!(app.count(left).await, 0);
    app.finish().await;
}

#[tokio::test]
async fn a_session_that_is_ended_during_a_request_stays_ended() {
    let app = app().without_bot().start().await;
    let owner = app.sign_in("owner").await;
    // The page has its visit to note, and is held up between reading the session and noting it.
    app.sql_execute("UPDATE sessions SET data = jsonb_set(data, '{visited}', '0')")
        .await;
    let end = app.sql_execute(
        "DO $$ BEGIN
             LOCK TABLE users IN ACCESS EXCLUSIVE MODE;
             WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass) LOOP
                 PERFORM pg_sleep(0.01);
             END LOOP;
             DELETE FROM sessions;
         END $$",
    );
    let visit = async {
        let held = "SELECT count(*) AS n FROM pg_locks
                    WHERE granted AND relation = 'users'::regclass AND mode = 'AccessExclusiveLock'";
        eventually(PATIENCE, "the page is held up", || async {
            match app.count(held).await {
                1 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        owner.page("/users").await
    };
    let (_, page) = tokio::join!(end, visit);
    assert!(page.status.is_success(), "it was under way already: {page:?}");
    assert_eq!(app.count("SELECT count(*) AS n FROM sessions").await, 0);
    assert!(owner.page("/users").await.status.is_redirection(), "signed in again");
    app.finish().await;
}

#[tokio::test]
async fn a_session_ends_a_month_after_it_began() {
    let app = app().start().await;
    let owner = app.sign_in("owner").await;
    let cookie = owner.cookie("botdeck").unwrap();
    assert!(
        !app.db.dump().await.contains(&cookie),
        "who reads the database can take it over"
    );
    app.sql_execute("UPDATE sessions SET created_at = now() - interval '29 days'")
        .await;
    assert!(owner.page("/users").await.status.is_success());
    app.sql_execute("UPDATE sessions SET created_at = now() - interval '31 days'")
        .await;
    assert!(owner.page("/users").await.status.is_redirection());
    app.finish().await;
}

#[tokio::test]
async fn a_new_password_ends_what_the_old_one_began() {
    let app = app().start().await;
    let (owner, viewer) = (app.sign_in("owner").await, app.sign_in("viewer").await);
    let email = app.sql_one("SELECT email FROM staff WHERE role = 'viewer'").await;
    let reset = [
        "admin",
        "reset-password",
        "--email",
        email["email"].as_str().unwrap(),
        "--password-stdin",
    ];
    app.cli_with(&[], &reset, "another-password-1\n").await.ok();
    assert!(viewer.page("/users").await.status.is_redirection(), "still signed in");
    assert!(
        owner.page("/users").await.status.is_success(),
        "somebody else was signed out"
    );
    app.finish().await;
}
