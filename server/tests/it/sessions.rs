//! How long somebody stays signed in.

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
