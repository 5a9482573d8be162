//! Several messages that are one request: albums and long pastes.

use std::time::Duration;

use test_support::app::{PATIENCE, TOKEN, TestApp, eventually};

use crate::{anna, app};

/// A text of an app that cut a longer one: `mark`, and words up to 4,050 characters.
fn piece(mark: &str) -> String {
    let words = "word ".repeat(810);
    format!("{mark} {}", &words[..4050 - mark.len() - 1])
}

async fn jobs(app: &TestApp) -> Vec<(i64, i64)> {
    let rows = app.sql("SELECT parts, attempts FROM jobs ORDER BY seq").await;
    rows.iter()
        .map(|row| (row["parts"].as_i64().unwrap(), row["attempts"].as_i64().unwrap()))
        .collect()
}

#[tokio::test]
async fn an_album_is_answered_once() {
    for webhook in [false, true] {
        let builder = if webhook { app().webhook() } else { app() };
        let app = builder.start().await;
        let anna = anna();
        app.telegram
            .send_album(TOKEN, &anna, &[None, Some("what is this?"), None, None, None]);
        app.answer_with(anna.id, "only text").await;
        app.idle().await;
        assert_eq!(app.said_by_bot(anna.id).len(), 1, "by webhook: {webhook}");
        assert_eq!(jobs(&app).await, [(5, 1)]);
        assert_eq!(app.count("SELECT count(*) AS n FROM updates").await, 5);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_long_paste_becomes_one_question_in_its_order() {
    let app = app().start().await;
    let anna = anna();
    let ids = [app.say(&anna, &piece("FIRST")), app.say(&anna, &piece("SECOND"))];
    app.say(&anna, "THIRD and last");
    app.say(&anna, "another question");
    app.answer(anna.id, "Echo: another question").await;
    app.idle().await;
    assert_eq!(ids, [1, 2]);
    let requests = app.provider.requests();
    assert_eq!(requests.len(), 2);
    let asked = requests[0].body["messages"].as_array().unwrap().last().unwrap()["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        asked,
        format!("{}\n{}\nTHIRD and last", piece("FIRST").trim(), piece("SECOND").trim())
    );
    assert_eq!(jobs(&app).await, [(3, 1), (1, 1)]);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    assert_eq!(
        app.count("SELECT count(*) AS n FROM messages WHERE author = 'user'")
            .await,
        2
    );
    app.finish().await;
}

#[tokio::test]
async fn a_long_text_alone_is_answered_when_nothing_follows() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, &piece("ALONE"));
    app.answer_with(anna.id, "ALONE").await;
    app.idle().await;
    assert_eq!(jobs(&app).await, [(1, 1)]);
    assert_eq!(app.provider.requests().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_kill_while_parts_are_awaited_loses_none() {
    let mut app = app().start().await;
    let anna = anna();
    app.say(&anna, &piece("BEFORE"));
    eventually(PATIENCE, "the first part is stored", || async {
        match app
            .count("SELECT count(*) AS n FROM jobs WHERE gather IS NOT NULL")
            .await
        {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    app.kill().await;
    assert_eq!(jobs(&app).await, [(1, 0)], "it was taken before the rest was there");
    // However long the outage, what was sent together is answered together.
    app.sql_execute("UPDATE jobs SET run_at = now() + interval '5 seconds', created_at = now()")
        .await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.say(&anna, &piece("MIDDLE"));
    app.say(&anna, "AFTER");
    app.start().await;
    app.answer_with(anna.id, "AFTER").await;
    app.idle().await;
    let requests = app.provider.requests();
    assert_eq!(requests.len(), 1);
    let asked = requests[0].body.to_string();
    for part in ["BEFORE", "MIDDLE", "AFTER"] {
        assert!(asked.contains(part), "{part} was lost");
    }
    assert_eq!(jobs(&app).await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn repeated_and_reordered_deliveries_of_parts_change_nothing() {
    let app = app().webhook().start().await;
    let anna = anna();
    app.telegram.duplicate_deliveries(2);
    app.say(&anna, &piece("ONE"));
    app.say(&anna, &piece("TWO"));
    app.say(&anna, "END");
    app.answer_with(anna.id, "END").await;
    app.idle().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(app.telegram.deliveries(TOKEN).len(), 9);
    assert_eq!(app.provider.requests().len(), 1);
    assert_eq!(jobs(&app).await, [(3, 1)]);
    // One after the other, later: all are known.
    let stored = app.sql("SELECT payload FROM updates ORDER BY update_id DESC").await;
    for update in stored {
        app.telegram.push_update(TOKEN, update["payload"].clone());
    }
    app.telegram
        .wait_for(PATIENCE, |telegram| {
            (telegram.deliveries(TOKEN).len() >= 18).then_some(())
        })
        .await
        .unwrap();
    app.idle().await;
    assert_eq!(app.provider.requests().len(), 1);
    assert_eq!(jobs(&app).await, [(3, 1)]);
    app.finish().await;
}

#[tokio::test]
async fn an_album_that_comes_in_pieces_behind_an_answer_being_made_is_one() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "slow[[delay=2500]]");
    let album = "13000000000000777";
    for picture in 1..=3 {
        app.telegram.send_picture(TOKEN, &anna, album, Some("look"));
        eventually(PATIENCE, "the picture is stored", || async {
            match app.count("SELECT count(*) AS n FROM updates").await {
                stored if stored == picture + 1 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    }
    app.answer(anna.id, "Echo: slow").await;
    app.answer_with(anna.id, "only text").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id).len(), 2);
    assert_eq!(jobs(&app).await, [(1, 1), (3, 1)]);
    app.finish().await;
}
