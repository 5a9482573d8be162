use serde_json::{Value, json};
use services::{Ended, Error};

use crate::app::App;

#[tokio::test]
async fn the_same_update_by_polling_and_webhook_becomes_one_job() {
    let app = App::new().await;
    let update = app.update(7, 7, "hello");
    let batch = || vec![update.clone(), update.clone()];
    let (intake, other) = (app.intake(), app.replica(&app.secret).intake());
    let (one, two) = tokio::join!(intake.accept(app.bot, batch()), other.accept(app.bot, batch()));
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    assert_eq!(app.intake().accept(app.bot, batch()).await.unwrap(), 0);
    assert_eq!((app.test.count("updates").await, app.test.count("jobs").await), (1, 1));
    // The same number of another bot is another update.
    assert_eq!(app.intake().accept(crate::app::PLAYGROUND, batch()).await.unwrap(), 1);
}

#[tokio::test]
async fn unknown_kinds_are_kept_as_they_came_and_skipped() {
    let app = App::new().await;
    let strange = json!({ "update_id": 5, "brand_new_kind": { "chat": { "id": 1 }, "x": [1, null, "ä"] } });
    let bare = json!({ "update_id": 6 });
    assert_eq!(
        app.intake().accept(app.bot, vec![strange.clone(), bare]).await.unwrap(),
        2
    );
    assert_eq!(app.test.count("jobs").await, 0);
    let kinds: Vec<String> = app.test.column("SELECT kind FROM updates ORDER BY update_id").await;
    assert_eq!(kinds, ["brand_new_kind", "unknown"]);
    assert_eq!(
        app.test
            .one::<Value>("SELECT payload FROM updates WHERE update_id = 5")
            .await,
        strange
    );
}

#[tokio::test]
async fn what_is_no_update_is_refused_as_a_whole() {
    let app = App::new().await;
    for bad in [
        json!([]),
        json!({ "message": {} }),
        json!({ "update_id": "7" }),
        json!(null),
    ] {
        let refused = app.intake().accept(app.bot, vec![app.update(7, 7, "fine"), bad]).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(app.test.count("updates").await, 0);
}

#[tokio::test]
async fn nul_is_left_out_of_texts_and_names_and_the_rest_is_kept() {
    let app = App::new().await;
    let mut update = app.update(7, 7, "a\0b");
    update["message"]["from"]["first_name"] = json!(["\0", { "\0key": "An\0na" }]);
    assert_eq!(app.intake().accept(app.bot, vec![update]).await.unwrap(), 1);
    let job = app
        .queue()
        .claim("worker", 9, services::Which::All, &[])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(job.update["message"]["text"], "ab");
    assert_eq!(
        job.update["message"]["from"]["first_name"],
        json!(["", { "key": "Anna" }])
    );
    // One strange update must not keep those that come with it from being taken.
    let strange = json!({ "update_id": 900, "new\0kind": { "x": 1 } });
    let taken = app
        .intake()
        .accept(app.bot, vec![strange, app.update(7, 7, "fine")])
        .await;
    assert!(matches!(taken, Ok(2)), "{taken:?}");
}

#[tokio::test]
async fn stop_overtakes_what_waits_in_its_conversation() {
    let app = App::new().await;
    let texts = ["first", "second", "/stop"];
    let updates = texts.map(|text| app.update(7, 7, text)).to_vec();
    app.intake().accept(app.bot, updates).await.unwrap();
    let claimed = app.queue().claim("worker", 9, services::Which::All, &[]).await.unwrap();
    let order: Vec<&str> = claimed
        .iter()
        .map(|job| job.update["message"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(order, ["/stop", "first"]);
    // And it stops what runs there, and only that.
    let lane = app.incoming(7, 7, "").lane();
    assert!(app.queue().cancel_lane(&lane, claimed[0].id).await.unwrap());
    let tokens: Vec<_> = claimed.iter().map(|job| job.token).collect();
    assert_eq!(app.queue().cancelled(&tokens).await.unwrap(), [claimed[1].token]);
    assert!(app.queue().end(&claimed[1], Ended::Done).await.unwrap());
    let next = app.queue().claim("worker", 9, services::Which::All, &[]).await.unwrap();
    assert_eq!(next[0].update["message"]["text"], "second");
    assert!(app.queue().cancelled(&[next[0].token]).await.unwrap().is_empty());
}

#[tokio::test]
async fn topics_and_chats_have_lanes_of_their_own() {
    let app = App::new().await;
    let mut topic = app.update(7, -5, "in a topic");
    topic["message"]["is_topic_message"] = json!(true);
    topic["message"]["message_thread_id"] = json!(9);
    let updates = vec![
        app.update(7, -5, "in general"),
        topic,
        app.update(8, -5, "waits"),
        app.update(7, 7, "alone"),
    ];
    app.intake().accept(app.bot, updates).await.unwrap();
    let claimed = app.queue().claim("worker", 9, services::Which::All, &[]).await.unwrap();
    let texts: Vec<&str> = claimed
        .iter()
        .map(|job| job.update["message"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["in general", "in a topic", "alone"]);
}

#[tokio::test]
async fn a_playground_message_takes_the_same_way() {
    let app = App::new().await;
    let owner = app.owner().await;
    app.playground()
        .send(&owner, crate::app::PLAYGROUND, " hello\0 there ".to_owned())
        .await
        .unwrap();
    let job = app
        .queue()
        .claim("worker", 9, services::Which::All, &[])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(job.update["message"]["text"], "hello there");
    let chat = job.update["message"]["chat"]["id"].as_i64().unwrap();
    assert_eq!(job.lane, Some(services::lane(crate::app::PLAYGROUND, chat, 0)));
    let shown = app
        .playground()
        .open(&owner, crate::app::PLAYGROUND)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(shown.messages[0].body.text, "hello there");
    for bad in ["", " \n ", &"x".repeat(4097)] {
        let refused = app
            .playground()
            .send(&owner, crate::app::PLAYGROUND, bad.to_owned())
            .await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let refused = app.playground().send(&owner, app.bot, "hi".to_owned()).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
}

#[tokio::test]
async fn who_says_stop_a_hundred_times_takes_one_hand_and_a_payment_does_not_wait_for_that() {
    let app = App::new().await;
    let mut updates: Vec<_> = (0..100).map(|_| app.update(7, 7, "/stop")).collect();
    let mut checkout = app.update(7, 7, "");
    checkout["pre_checkout_query"] = json!({ "id": "1", "from": { "id": 7 } });
    checkout.as_object_mut().unwrap().remove("message");
    updates.extend([checkout, app.update(8, 8, "/stop")]);
    app.intake().accept(app.bot, updates).await.unwrap();
    let claimed = app
        .queue()
        .claim("worker", 32, services::Which::All, &[])
        .await
        .unwrap();
    assert!(claimed.iter().all(|job| job.overtakes));
    let mut whose: Vec<_> = claimed.iter().map(|job| job.lane.clone().unwrap()).collect();
    whose.sort();
    let lane = |end: &str| format!("{}/{end}", app.bot);
    let expected = ["7/0/message", "7/0/pre_checkout_query", "8/0/message"].map(lane);
    assert_eq!(whose, expected);
}

#[tokio::test]
async fn what_overtakes_is_taken_into_a_full_queue_up_to_a_point() {
    let app = App::with_queue_limit(3).await;
    let (intake, bot) = (app.intake(), app.bot);
    let room = async || {
        // One that has not looked yet.
        let intake = app.replica(&app.secret).intake();
        (
            intake.has_room(bot).await.unwrap(),
            intake.has_room_for_overtaking(bot).await.unwrap(),
        )
    };
    assert_eq!(room().await, (true, true));
    let batch = ["one", "two", "three"].map(|text| app.update(7, 7, text)).to_vec();
    intake.accept(bot, batch).await.unwrap();
    assert_eq!(room().await, (false, true));
    // Of what waits at Telegram only the one is taken, and the others when they come again.
    let batch = vec![
        app.update(7, 7, "four"),
        app.update(7, 7, "/stop"),
        app.update(8, 8, "/stop"),
    ];
    assert_eq!(intake.accept_overtaking(bot, batch.clone()).await.unwrap(), 2);
    assert_eq!(intake.accept_overtaking(bot, batch.clone()).await.unwrap(), 0);
    assert_eq!(intake.accept(bot, batch).await.unwrap(), 1);
    assert_eq!(room().await, (false, false));
}
