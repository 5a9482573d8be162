//! The live side of the playground, read as a browser reads it.

use std::time::Duration;

use reqwest::Response;
use test_support::app::{PATIENCE, Visitor, eventually};
use tokio::time::timeout;

use crate::app;

const BOT: &str = "01930000-0000-7000-8000-0000000000b0";
const EVENTS: &str = "/api/playground/01930000-0000-7000-8000-0000000000b0/events";

async fn say(visitor: &Visitor, text: &str) {
    let sent = visitor
        .post("/api/fn/playground/send", &[("bot", BOT), ("text", text)])
        .await;
    assert_eq!(sent.status, 200, "{sent:?}");
}

/// Reads on until `words` have come.
async fn until(tab: &mut Response, words: &str) {
    let mut seen = String::new();
    while !seen.contains(words) {
        let chunk = timeout(PATIENCE, tab.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{words:?} does not come after {seen}"));
        let chunk = chunk.unwrap().unwrap_or_else(|| panic!("it ends after {seen}"));
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
}

/// Reads to the end, and gives what came until then.
async fn end(tab: &mut Response) -> String {
    let mut seen = String::new();
    while let Some(chunk) = timeout(PATIENCE, tab.chunk()).await.unwrap().unwrap() {
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    seen
}

#[tokio::test]
async fn who_may_no_longer_talk_reads_no_more() {
    let app = app().without_bot().without("OPENAI_API_KEY").start().await;
    let (owner, support) = (app.sign_in("owner").await, app.sign_in("support").await);
    for (visitor, text) in [(&owner, "the owner's"), (&support, "the support's")] {
        say(visitor, text).await;
    }
    app.idle().await;
    let mut kept = owner.events(EVENTS).await;
    let mut lost = support.events(EVENTS).await;
    until(&mut kept, "the owner's").await;
    until(&mut lost, "the support's").await;
    app.sql_execute("UPDATE staff SET role = 'viewer' WHERE role = 'support'")
        .await;
    end(&mut lost).await;
    assert_eq!(support.open(EVENTS).await, 403);
    let refused = support
        .post("/api/fn/playground/send", &[("bot", BOT), ("text", "once more")])
        .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (403, &"BD-FORBIDDEN".into())
    );
    say(&owner, "and who may goes on").await;
    until(&mut kept, "and who may goes on").await;
    assert!(owner.post("/api/fn/auth/sign-out", &[]).await.status.is_success());
    let seen = end(&mut kept).await;
    assert!(!seen.contains("the support's"), "somebody else's talk: {seen}");
    assert_eq!(owner.open(EVENTS).await, 401);
    app.finish().await;
}

/// Five tabs would look fifty times a second all day.
#[tokio::test]
async fn tabs_that_stand_open_look_seldom_and_miss_nothing() {
    const LOOKS: &str = "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) AS n
                         FROM pg_stat_user_tables WHERE relname = 'browser_messages'";
    const WHILE: Duration = Duration::from_secs(4);
    let app = app().without_bot().without("OPENAI_API_KEY").start().await;
    let owner = app.sign_in("owner").await;
    say(&owner, "Hello").await;
    app.idle().await;
    let mut tabs = Vec::new();
    for _ in 0..5 {
        let mut tab = owner.events(EVENTS).await;
        until(&mut tab, "Hello").await;
        tabs.push(tab);
    }
    // Every two seconds each of them, when nothing has come for a while.
    eventually(PATIENCE * 3, "a quiet pace", || async {
        let before = app.count(LOOKS).await;
        tokio::time::sleep(WHILE).await;
        match app.count(LOOKS).await - before {
            5..=25 => Ok(()),
            looks => Err(format!("{looks} looks in {WHILE:?}")),
        }
    })
    .await;
    say(&owner, "What is new?").await;
    for tab in &mut tabs {
        until(tab, "What is new?").await;
    }
    app.finish().await;
}
