//! What the fake Bot API refuses in messages, and how it fails on request.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::FakeTelegram;
use test_support::fake_telegram::{Drafts, Fault, User};

const TOKEN: &str = "123456:TEST";
const ANNA: i64 = 7;
const SOON: Duration = Duration::from_secs(3);

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A bot that Anna has written to; her message has id 1.
async fn fake() -> (FakeTelegram, Bot) {
    let fake = FakeTelegram::start().await.unwrap();
    assert_eq!(fake.add_bot(TOKEN, "deck_bot"), 123_456);
    assert_eq!(fake.send_text(TOKEN, &User::new(ANNA, "Anna"), "Hello").1, 1);
    let bot = Bot {
        url: format!("{}/bot{TOKEN}", fake.url()),
        client: client(),
    };
    (fake, bot)
}

struct Bot {
    url: String,
    client: reqwest::Client,
}

impl Bot {
    async fn try_call(&self, method: &str, params: Value) -> reqwest::Result<(u16, Value)> {
        let response = self
            .client
            .post(format!("{}/{method}", self.url))
            .json(&params)
            .send()
            .await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// The result of a call that must succeed.
    async fn ok(&self, method: &str, params: Value) -> Value {
        let (status, body) = self.try_call(method, params).await.unwrap();
        assert_eq!((status, &body["ok"]), (200, &json!(true)), "{body}");
        body["result"].clone()
    }

    /// Code and description of a call that must be refused.
    async fn refused(&self, method: &str, params: Value) -> (u16, String) {
        let (status, body) = self.try_call(method, params).await.unwrap();
        assert_eq!(
            (&body["ok"], &body["error_code"]),
            (&json!(false), &json!(status)),
            "{body}"
        );
        (status, body["description"].as_str().unwrap().to_owned())
    }

    async fn send(&self, text: &str) -> i64 {
        self.ok("sendMessage", json!({"chat_id": ANNA, "text": text})).await["message_id"]
            .as_i64()
            .unwrap()
    }
}

fn bad(why: &str) -> (u16, String) {
    (400, format!("Bad Request: {why}"))
}

#[tokio::test]
async fn tokens_and_methods_must_exist() {
    let (fake, bot) = fake().await;
    let me = bot.ok("GetMe", json!({})).await;
    assert_eq!(
        (me["id"].as_i64(), me["username"].as_str()),
        (Some(123_456), Some("deck_bot"))
    );
    assert_eq!(bot.refused("getMoon", json!({})).await, (404, "Not Found".to_owned()));
    let other = Bot {
        url: format!("{}/bot999:NO", fake.url()),
        client: client(),
    };
    assert_eq!(
        other.refused("getMe", json!({})).await,
        (401, "Unauthorized".to_owned())
    );
    let malformed = Bot {
        url: format!("{}/botnonsense", fake.url()),
        client: client(),
    };
    assert_eq!(
        malformed.refused("getMe", json!({})).await,
        (404, "Not Found".to_owned())
    );
    fake.revoke(TOKEN);
    assert_eq!(bot.refused("getMe", json!({})).await, (401, "Unauthorized".to_owned()));
    assert_eq!(fake.calls_of("getMe").len(), 4);
}

#[tokio::test]
async fn a_text_is_1_to_4096_utf16_units() {
    let (fake, bot) = fake().await;
    let crabs = "🦀".repeat(2048);
    assert_eq!(bot.send(&crabs).await, 2);
    let too_long = json!({"chat_id": ANNA, "text": format!("{crabs}!")});
    assert_eq!(bot.refused("sendMessage", too_long).await, bad("message is too long"));
    let blank = json!({"chat_id": ANNA, "text": " \n "});
    assert_eq!(bot.refused("sendMessage", blank).await, bad("message text is empty"));
    let nowhere = json!({"chat_id": 8, "text": "hi"});
    assert_eq!(bot.refused("sendMessage", nowhere).await, bad("chat not found"));
    let mode = json!({"chat_id": ANNA, "text": "hi", "parse_mode": "BBCode"});
    assert_eq!(bot.refused("sendMessage", mode).await, bad("unsupported parse_mode"));
    assert_eq!(fake.messages(TOKEN, ANNA).len(), 2, "nothing refused was sent");
}

#[tokio::test]
async fn entities_lie_within_the_text_and_nest_as_allowed() {
    let (_fake, bot) = fake().await;
    let entity = |kind: &str, offset: i64, length: i64| json!({"type": kind, "offset": offset, "length": length});
    let refused = async |entities: Value| {
        let (code, why) = bot
            .refused(
                "sendMessage",
                json!({"chat_id": ANNA, "text": "🦀 crab", "entities": entities}),
            )
            .await;
        assert_eq!(code, 400);
        why.strip_prefix("Bad Request: can't parse entities: ")
            .unwrap()
            .to_owned()
    };
    assert!(
        refused(json!([entity("bold", 3, 5)]))
            .await
            .contains("ends after the end of the text")
    );
    assert!(
        refused(json!([entity("bold", 1, 2)]))
            .await
            .contains("begins in a middle of a UTF-16 symbol")
    );
    assert!(
        refused(json!([entity("bold", 0, 1)]))
            .await
            .contains("ends in a middle of a UTF-16 symbol")
    );
    assert!(refused(json!([entity("bold", 0, 0)])).await.contains("is empty"));
    assert!(refused(json!([entity("bold", -1, 2)])).await.contains("negative"));
    assert!(
        refused(json!([entity("shiny", 0, 2)]))
            .await
            .contains("unsupported entity type")
    );
    assert!(
        refused(json!([entity("text_link", 0, 2)]))
            .await
            .contains("lacks the field \"url\"")
    );
    assert!(
        refused(json!([entity("bold", 0, 4), entity("italic", 3, 3)]))
            .await
            .contains("overlap partly")
    );
    assert!(
        refused(json!([entity("pre", 0, 7), entity("bold", 3, 2)]))
            .await
            .contains("can't be inside pre")
    );
    assert!(
        refused(json!([entity("bold", 0, 7), entity("code", 3, 2)]))
            .await
            .contains("can't be inside bold")
    );
    assert!(
        refused(json!([entity("blockquote", 0, 7), entity("blockquote", 3, 2)]))
            .await
            .contains("blockquote")
    );
    let fine = json!([
        entity("blockquote", 0, 7),
        entity("code", 3, 2),
        entity("bold", 5, 2),
        entity("italic", 5, 2)
    ]);
    bot.ok(
        "sendMessage",
        json!({"chat_id": ANNA, "text": "🦀 crab", "entities": fine}),
    )
    .await;
}

#[tokio::test]
async fn keyboards_and_replies_are_checked() {
    let (fake, bot) = fake().await;
    let with = |data: &str| {
        let markup = json!({"inline_keyboard": [[{"text": "Go", "callback_data": data}]]});
        json!({"chat_id": ANNA, "text": "Choose", "reply_markup": markup})
    };
    assert_eq!(bot.refused("sendMessage", with("")).await, bad("BUTTON_DATA_INVALID"));
    assert_eq!(
        bot.refused("sendMessage", with(&"я".repeat(33))).await,
        bad("BUTTON_DATA_INVALID")
    );
    let sent = bot.ok("sendMessage", with(&"я".repeat(32))).await["message_id"]
        .as_i64()
        .unwrap();
    let reply = |lenient: bool| json!({"message_id": 99, "allow_sending_without_reply": lenient});
    let params = |lenient| json!({"chat_id": ANNA, "text": "hi", "reply_parameters": reply(lenient)});
    assert_eq!(
        bot.refused("sendMessage", params(false)).await,
        bad("message to be replied not found")
    );
    bot.ok("sendMessage", params(true)).await;
    let answer = bot
        .ok(
            "sendMessage",
            json!({"chat_id": ANNA, "text": "hi", "reply_to_message_id": 1}),
        )
        .await;
    assert_eq!(answer["reply_to_message"]["text"], "Hello");

    let query = fake.press_button(TOKEN, &User::new(ANNA, "Anna"), sent, "go");
    let answer = json!({"callback_query_id": query, "text": "Done"});
    assert_eq!(fake.callback_answer(TOKEN, &query), None);
    bot.ok("answerCallbackQuery", answer.clone()).await;
    assert_eq!(
        fake.callback_answer(TOKEN, &query).unwrap().text.as_deref(),
        Some("Done")
    );
    assert!(
        bot.refused("answerCallbackQuery", answer)
            .await
            .1
            .contains("query is too old")
    );
}

#[tokio::test]
async fn only_own_messages_are_edited_and_only_to_something_new() {
    let (fake, bot) = fake().await;
    let id = bot.send("Thinking…").await;
    let edit = |id: i64, text: &str| json!({"chat_id": ANNA, "message_id": id, "text": text});
    bot.ok("editMessageText", edit(id, "Done")).await;
    assert!(
        bot.refused("editMessageText", edit(id, "Done"))
            .await
            .1
            .starts_with("Bad Request: message is not modified")
    );
    // Telegram drops white space at the end, so this is no change either.
    assert!(
        bot.refused("editMessageText", edit(id, "Done \n"))
            .await
            .1
            .contains("message is not modified")
    );
    assert_eq!(
        bot.refused("editMessageText", edit(1, "Hack")).await,
        bad("message can't be edited")
    );
    assert_eq!(
        bot.refused("editMessageText", edit(50, "Gone")).await,
        bad("message to edit not found")
    );
    assert_eq!(
        bot.refused("editMessageText", edit(id, &"x".repeat(4097))).await,
        bad("message is too long")
    );
    let markup = json!({"inline_keyboard": [[{"text": "Go", "callback_data": "go"}]]});
    let params = json!({"chat_id": ANNA, "message_id": id, "reply_markup": markup});
    bot.ok("editMessageReplyMarkup", params.clone()).await;
    assert!(
        bot.refused("editMessageReplyMarkup", params)
            .await
            .1
            .contains("message is not modified")
    );
    let message = fake.messages(TOKEN, ANNA).pop().unwrap();
    assert_eq!(
        (message.text.as_str(), message.edits, message.edit_count),
        ("Done", vec!["Thinking…".to_owned()], 2)
    );
    bot.ok("deleteMessage", json!({"chat_id": ANNA, "message_id": id}))
        .await;
    assert_eq!(
        bot.refused("editMessageText", edit(id, "Late")).await,
        bad("message to edit not found")
    );
}

#[tokio::test]
async fn a_blocked_bot_learns_it_and_is_forbidden() {
    let (fake, bot) = fake().await;
    fake.block(TOKEN, ANNA);
    let forbidden = (403, "Forbidden: bot was blocked by the user".to_owned());
    assert_eq!(
        bot.refused("sendMessage", json!({"chat_id": ANNA, "text": "hi"})).await,
        forbidden
    );
    let updates = bot.ok("getUpdates", json!({})).await;
    assert_eq!(updates[1]["my_chat_member"]["new_chat_member"]["status"], "kicked");
    fake.unblock(TOKEN, ANNA);
    bot.send("hi").await;
}

#[tokio::test]
async fn too_many_messages_are_told_to_wait_and_impatience_is_counted() {
    let (fake, bot) = fake().await;
    fake.flood(Some(ANNA), 2, Duration::from_millis(800));
    bot.send("one").await;
    bot.send("two").await;
    let (status, body) = bot
        .try_call("sendMessage", json!({"chat_id": ANNA, "text": "three"}))
        .await
        .unwrap();
    assert_eq!((status, &body["parameters"]["retry_after"]), (429, &json!(1)));
    assert_eq!(body["description"], "Too Many Requests: retry after 1");
    assert_eq!(fake.flood_violations(), 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        bot.refused("sendChatAction", json!({"chat_id": ANNA, "action": "typing"}))
            .await
            .0,
        429
    );
    assert_eq!(fake.flood_violations(), 1);
    tokio::time::sleep(Duration::from_millis(950)).await;
    bot.send("three").await;
    assert_eq!(fake.flood_violations(), 1);
}

#[tokio::test]
async fn faults_meet_the_next_calls_only() {
    let (fake, bot) = fake().await;
    let hi = json!({"chat_id": ANNA, "text": "hi"});
    fake.fail_next("sendMessage", 1, Fault::Status(502, "Bad Gateway".to_owned()));
    assert_eq!(
        bot.refused("sendMessage", hi.clone()).await,
        (502, "Bad Gateway".to_owned())
    );
    fake.fail_next("sendMessage", 1, Fault::DropBeforeHandling);
    assert!(bot.try_call("sendMessage", hi.clone()).await.is_err());
    assert_eq!(fake.messages(TOKEN, ANNA).len(), 1);
    fake.fail_next("sendMessage", 1, Fault::DropAfterHandling);
    assert!(bot.try_call("sendMessage", hi.clone()).await.is_err());
    assert_eq!(fake.messages(TOKEN, ANNA).len(), 2, "sent, though the bot cannot know");
    fake.fail_next("*", 1, Fault::Delay(150));
    let before = Instant::now();
    bot.send("slow").await;
    assert!(before.elapsed() >= Duration::from_millis(150));
    fake.fail_next("sendMessage", 1, Fault::RetryAfter(1));
    assert_eq!(bot.refused("sendMessage", hi.clone()).await.0, 429);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(bot.refused("sendMessage", hi).await.0, 429);
    assert_eq!(fake.flood_violations(), 1);
    let statuses: Vec<_> = fake.calls_of("sendMessage").iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(502), None, None, Some(200), Some(429), Some(429)]);
}

#[tokio::test]
async fn drafts_are_for_private_chats() {
    let (fake, bot) = fake().await;
    let draft = |chat: i64, id: i64| json!({"chat_id": chat, "draft_id": id, "text": "Well"});
    assert_eq!(bot.refused("sendMessageDraft", draft(ANNA, 5)).await.0, 404);
    fake.drafts_are(Drafts::Taken);
    assert!(!fake.press_stop(TOKEN, ANNA), "there is no draft");
    bot.ok("sendMessageDraft", draft(ANNA, 5)).await;
    assert_eq!(bot.refused("sendMessageDraft", draft(ANNA, 0)).await.0, 400);
    let group = json!({"id": -100, "type": "supergroup", "title": "Club"});
    fake.push_update(
        TOKEN,
        json!({"message": {"message_id": 40, "chat": group, "date": 1, "text": "yo"}}),
    );
    assert_eq!(
        bot.refused("sendMessageDraft", draft(-100, 5)).await,
        bad("TEXTDRAFT_PEER_INVALID")
    );
    assert_eq!(
        bot.ok("sendMessage", json!({"chat_id": -100, "text": "yo"})).await["message_id"],
        41
    );
    assert!(!fake.press_stop(TOKEN, ANNA), "the draft has no button");
    fake.drafts_are(Drafts::Refused);
    assert_eq!(bot.refused("sendMessageDraft", draft(ANNA, 5)).await.0, 400);
    assert_eq!(fake.drafts(TOKEN, ANNA).len(), 1);
}

#[tokio::test]
async fn every_encoding_of_a_call_is_understood() {
    let (fake, bot) = fake().await;
    let entities = json!([{"type": "bold", "offset": 0, "length": 2}]);
    let query = format!("{}/sendMessage?chat_id={ANNA}&text=a%20b+c", bot.url);
    bot.client.get(query).send().await.unwrap().error_for_status().unwrap();
    let form = format!("chat_id={ANNA}&text=%D0%B4%D0%B0&entities={entities}");
    let request = bot.client.post(format!("{}/sendmessage", bot.url)).body(form);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.send().await.unwrap().error_for_status().unwrap();
    let file = |bytes: usize| {
        reqwest::multipart::Part::bytes(vec![1; bytes])
            .file_name("a.png")
            .mime_str("image/png")
            .unwrap()
    };
    let photo = async |part: reqwest::multipart::Part, caption: &str| {
        let form = reqwest::multipart::Form::new()
            .text("chat_id", ANNA.to_string())
            .text("caption", caption.to_owned());
        let sent = bot
            .client
            .post(format!("{}/sendPhoto", bot.url))
            .multipart(form.part("photo", part))
            .send();
        sent.await.unwrap().json::<Value>().await.unwrap()
    };
    // More than axum's own limit for forms.
    assert_eq!(
        photo(file(3_000_000), "Look").await["result"]["photo"][0]["file_size"],
        3_000_000
    );
    assert_eq!(
        photo(file(9), &"x".repeat(1025)).await["description"],
        "Bad Request: message caption is too long"
    );
    assert_eq!(
        photo(file(0), "").await["description"],
        "Bad Request: file must be non-empty"
    );
    let attached = reqwest::multipart::Form::new()
        .text("chat_id", ANNA.to_string())
        .text("document", "attach://x")
        .part("x", file(5));
    let sent = bot
        .client
        .post(format!("{}/sendDocument", bot.url))
        .multipart(attached)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    let missing = bot.refused("sendDocument", json!({"chat_id": ANNA})).await;
    assert_eq!(missing, bad("there is no document in the request"));
    let messages = fake.messages(TOKEN, ANNA);
    let texts: Vec<_> = messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(texts, ["Hello", "a b c", "да", "Look", ""]);
    assert_eq!(json!(messages[2].entities), entities);
    assert_eq!(messages[4].file.as_ref().unwrap().bytes, 5);
}

#[tokio::test]
async fn waiting_sees_what_comes_and_tells_what_did_not() {
    let (fake, bot) = fake().await;
    let waiting = tokio::spawn({
        let fake = fake.clone();
        async move { fake.wait_reply(TOKEN, ANNA, 1, SOON).await.unwrap().text }
    });
    bot.send("Hello Anna").await;
    assert_eq!(waiting.await.unwrap(), "Hello Anna");
    let error = fake
        .wait_reply(TOKEN, ANNA, 2, Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("message 2 of the bot: \"Hello Anna\""),
        "{error}"
    );
}

#[tokio::test]
async fn without_recording_counters_remain() {
    let (fake, bot) = fake().await;
    fake.record(false);
    for n in 0..100 {
        bot.send(&format!("message {n}")).await;
    }
    assert!(fake.calls().is_empty());
    assert!(fake.messages(TOKEN, ANNA).len() < 100);
    assert_eq!((fake.counters().sent, fake.counters().calls["sendMessage"]), (100, 100));
}

#[tokio::test]
async fn commands_are_kept_by_language() {
    let (_fake, bot) = fake().await;
    let commands = json!([{"command": "new", "description": "Start over"}]);
    bot.ok("setMyCommands", json!({"commands": commands, "language_code": "en"}))
        .await;
    assert_eq!(bot.ok("getMyCommands", json!({"language_code": "en"})).await, commands);
    assert_eq!(bot.ok("getMyCommands", json!({})).await, json!([]));
    let upper = json!({"commands": [{"command": "New", "description": "x"}]});
    assert_eq!(bot.refused("setMyCommands", upper).await, bad("BOT_COMMAND_INVALID"));
}

#[tokio::test]
async fn scripts_play_people_over_http() {
    let (fake, bot) = fake().await;
    let control = |action: &str| format!("{}/control/{action}", fake.url());
    let said = json!({"chat": 9, "text": "/start", "language_code": "ru"});
    let sent: Value = bot
        .client
        .post(control("send_text"))
        .json(&said)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(sent["message_id"], 1);
    bot.ok("sendMessage", json!({"chat_id": 9, "text": "Привет"})).await;
    let seen: Value = bot
        .client
        .get(control("messages?chat=9"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (seen[0]["text"].as_str(), seen[1]["text"].as_str()),
        (Some("/start"), Some("Привет"))
    );
    assert_eq!(bot.client.post(control("dance")).send().await.unwrap().status(), 400);
}
