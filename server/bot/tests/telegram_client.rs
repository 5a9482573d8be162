//! The client and the sender against the strict fake Bot API, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bot::{
    render::render,
    telegram::{Address, ChatOut, Drawn, OutError, Pacer, Sender, TelegramClient, TelegramError},
    texts,
};
use domain::{Lang, views::RichText};
use secrecy::SecretString;
use serde_json::{Value, json};
use services::{KnownIds, Taken, Urgency};
use test_support::fake_telegram::{Absent, Drafts, FakeTelegram, Fault, Manners, Unknown, User};

const TOKEN: &str = "123456:secret-TOKEN_part";
const ANNA: i64 = 7;

struct Scene {
    telegram: FakeTelegram,
    sender: Sender,
    anna: Address,
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(3))
        .build()
        .unwrap()
}

fn taken(ids: &[i64]) -> KnownIds {
    let taken = Taken {
        after: 1,
        before: None,
        highest: ids.iter().copied().fold(1, i64::max),
        ids: ids.to_vec(),
        unnoted: 1,
    };
    KnownIds {
        in_row: Some(taken.clone()),
        in_chat: Some(taken),
    }
}

fn client(url: &str, token: &str) -> TelegramClient {
    TelegramClient::new(http(), url, SecretString::from(token))
}

/// A bot and Anna, who has said hello.
async fn scene() -> Scene {
    let telegram = FakeTelegram::start().await.unwrap();
    telegram.add_bot(TOKEN, "deck_bot");
    telegram.send_text(TOKEN, &User::new(ANNA, "Anna"), "hello");
    let sender = Sender::new(client(&telegram.url(), TOKEN), Arc::new(Pacer::default()));
    let anna = Address {
        chat_id: ANNA,
        thread_id: None,
        reply_to: None,
        private: true,
        urgency: Urgency::Answer,
        ours_until: None,
    };
    Scene { telegram, sender, anna }
}

impl Scene {
    /// What the bot has said.
    fn said(&self) -> Vec<String> {
        let messages = self.telegram.messages(TOKEN, ANNA);
        messages.into_iter().filter(|m| m.from_bot).map(|m| m.text).collect()
    }

    /// The id, and whether the message said that already.
    async fn find_lost(&self, known: &KnownIds, body: &RichText) -> Result<Option<(i64, bool)>, OutError> {
        let mut tried = HashSet::new();
        let next = self.sender.next_to_try(known, &tried);
        let found = self
            .sender
            .find_lost(&self.anna, known, &next, &mut tried, body)
            .await?;
        Ok(found.map(|found| (found.id, found.as_it_was)))
    }
}

fn plain(text: &str) -> RichText {
    texts::rich(text)
}

#[tokio::test]
async fn a_message_is_sent_and_edited() {
    let scene = scene().await;
    let mut to = scene.anna;
    to.reply_to = Some(1);
    let id = scene.sender.send(&to, &render("**Hello** `x`")[0]).await.unwrap();
    assert_eq!(scene.said(), ["Hello x"]);
    let message = scene.telegram.messages(TOKEN, ANNA).pop().unwrap();
    assert_eq!(message.reply_to, Some(1));
    assert_eq!(message.entities.len(), 2);
    scene.sender.edit(&to, id, &plain("Bye"), true).await.unwrap();
    assert_eq!(scene.said(), ["Bye"]);
    let call = scene.telegram.calls_of("sendMessage").pop().unwrap();
    assert_eq!(call.params["link_preview_options"], json!({"is_disabled": true}));
    assert_eq!(call.params.get("parse_mode"), None);
}

#[tokio::test]
async fn whatever_is_rendered_is_accepted() {
    let scene = scene().await;
    let full = "😀".repeat(2048);
    let rich = "# A *b* `c`\n\n> **q** [`l`](https://a.example) ~~s~~\n> ```rust\n> fn a() {}\n> ```\n\n- a\n  1. **b `c` d**\n\n\
                | a | b |\n|---|--:|\n| 1 | 2 |\n\n![i](https://a.example/i.png) <me@a.example>\n\n";
    for markdown in [
        full.clone(),
        format!("{full}x"),
        rich.repeat(60),
        format!("```rs\n{}\n```", "let a;\n".repeat(900)),
    ] {
        for part in render(&markdown) {
            let before = part.text.clone();
            scene.sender.send(&scene.anna, &part).await.unwrap();
            assert_eq!(scene.said().pop().unwrap(), before);
        }
    }
    let over = plain(&format!("{full}x"));
    assert!(
        matches!(scene.sender.send(&scene.anna, &over).await, Err(OutError::Gone(why)) if why.contains("too long"))
    );
}

#[tokio::test]
async fn that_nothing_changes_is_a_success_of_an_edit() {
    let scene = scene().await;
    let id = scene.sender.send(&scene.anna, &plain("same")).await.unwrap();
    let client = scene.sender.client();
    assert_eq!(
        client.edit_message_text(ANNA, id, &plain("same"), None).await,
        Err(TelegramError::NotModified)
    );
    scene.sender.edit(&scene.anna, id, &plain("same"), true).await.unwrap();
    assert_eq!(
        scene.sender.edit(&scene.anna, 99, &plain("same"), true).await,
        Err(OutError::NoMessage)
    );
    assert_eq!(
        scene.sender.edit(&scene.anna, 1, &plain("not mine"), true).await,
        Err(OutError::NoMessage)
    );
}

#[tokio::test]
async fn a_pause_is_kept_and_the_answer_arrives() {
    let scene = scene().await;
    scene.telegram.flood(Some(ANNA), 2, Duration::from_secs(2));
    let begin = Instant::now();
    for n in 0..4 {
        scene
            .sender
            .send(&scene.anna, &plain(&format!("answer {n}")))
            .await
            .unwrap();
        assert!(
            !scene.sender.preview_edit(&scene.anna, 2, &plain("…")).await.unwrap(),
            "just sent"
        );
    }
    assert!(begin.elapsed() >= Duration::from_millis(1900));
    assert_eq!(scene.said().len(), 4);
    assert_eq!(scene.telegram.flood_violations(), 0);
    assert!(scene.telegram.counters().refused.contains_key(&429));
}

#[tokio::test]
async fn a_long_pause_puts_the_job_off_and_silences_previews() {
    let scene = scene().await;
    scene.telegram.fail_next("sendMessage", 1, Fault::RetryAfter(600));
    let Err(OutError::Retry(wait)) = scene.sender.send(&scene.anna, &plain("a")).await else {
        panic!("should be put off");
    };
    assert!(wait > Duration::from_secs(590), "{wait:?}");
    assert_eq!(scene.sender.preview_edit(&scene.anna, 2, &plain("a")).await, Ok(false));
    scene.sender.typing(&scene.anna).await.unwrap();
    assert_eq!(scene.telegram.calls_of("editMessageText").len(), 0);
    assert_eq!(scene.telegram.flood_violations(), 0);
    assert_eq!(scene.telegram.calls_of("sendChatAction").len(), 0);
}

#[tokio::test]
async fn previews_come_at_most_once_a_second() {
    let scene = scene().await;
    let id = scene.sender.send(&scene.anna, &plain("0")).await.unwrap();
    let mut shown = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        let text = plain(&format!("{:?}", begin.elapsed()));
        shown += usize::from(scene.sender.preview_edit(&scene.anna, id, &text).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shown, 2);
}

#[tokio::test]
async fn a_preview_that_fails_is_no_failure() {
    let scene = scene().await;
    for fault in [Fault::Status(502, "Bad Gateway".into()), Fault::DropBeforeHandling] {
        tokio::time::sleep(Duration::from_millis(1050)).await;
        scene.telegram.fail_next("editMessageText", 1, fault);
        assert_eq!(scene.sender.preview_edit(&scene.anna, 2, &plain("a")).await, Ok(false));
    }
}

#[tokio::test]
async fn who_blocks_the_bot_is_told_apart() {
    let scene = scene().await;
    scene.telegram.block(TOKEN, ANNA);
    assert_eq!(
        scene.sender.send(&scene.anna, &plain("a")).await,
        Err(OutError::Blocked)
    );
    assert_eq!(scene.sender.typing(&scene.anna).await, Err(OutError::Blocked));
    let mut nobody = scene.anna;
    nobody.chat_id = 1234;
    assert_eq!(scene.sender.send(&nobody, &plain("a")).await, Err(OutError::NoChat));
    scene.telegram.unblock(TOKEN, ANNA);
    scene.telegram.fail_next("sendMessage", 1, Fault::MigrateTo(-100_123));
    assert_eq!(
        scene.sender.send(&scene.anna, &plain("a")).await,
        Err(OutError::Moved(-100_123))
    );
}

#[tokio::test]
async fn failures_of_the_server_are_outlived_without_sending_twice() {
    let scene = scene().await;
    scene
        .telegram
        .fail_next("sendMessage", 2, Fault::Status(503, "Service Unavailable".into()));
    let begin = Instant::now();
    let id = scene.sender.send(&scene.anna, &plain("once")).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(1200), "{:?}", begin.elapsed());
    assert_eq!(scene.said(), ["once"]);
    // An edit may be repeated whatever became of it.
    scene.telegram.fail_next("editMessageText", 1, Fault::DropAfterHandling);
    scene
        .telegram
        .fail_next("editMessageText", 1, Fault::DropBeforeHandling);
    scene
        .sender
        .edit(&scene.anna, id, &plain("changed"), true)
        .await
        .unwrap();
    assert_eq!(scene.said(), ["changed"]);
    // Not for ever.
    scene
        .telegram
        .fail_next("sendMessage", 4, Fault::Status(503, "Service Unavailable".into()));
    assert!(matches!(
        scene.sender.send(&scene.anna, &plain("x")).await,
        Err(OutError::Retry(_))
    ));
    assert_eq!(scene.telegram.calls_of("sendMessage").len(), 3 + 4);
    // Of what any other failure did nobody knows.
    for code in [500, 502, 504] {
        let fault = Fault::Status(code, "Something".into());
        scene.telegram.fail_next("sendMessage", 1, fault);
        let sent = scene.sender.send(&scene.anna, &plain("x")).await;
        assert_eq!(sent, Err(OutError::Undecided), "{code}");
    }
    assert_eq!(scene.telegram.calls_of("sendMessage").len(), 7 + 3);
    assert_eq!(scene.said(), ["changed"]);
}

#[tokio::test]
async fn a_message_whose_answer_got_lost_is_found_again() {
    let scene = scene().await;
    let earlier = scene.sender.send(&scene.anna, &plain("earlier")).await.unwrap();
    for fault in [
        Fault::StatusAfterHandling(502),
        Fault::Status(504, "Gateway Timeout".into()),
    ] {
        let was_sent = fault == Fault::StatusAfterHandling(502);
        let body = render("the **final** text").remove(0);
        scene.telegram.fail_next("sendMessage", 1, fault);
        assert_eq!(scene.sender.send(&scene.anna, &body).await, Err(OutError::Undecided));
        let known = taken(&[earlier]);
        // Anna wrote in the meantime; her messages are not taken for the bot's.
        let found = scene.find_lost(&known, &body).await.unwrap();
        if was_sent {
            assert_eq!(found, Some((earlier + 1, true)));
            assert_eq!(scene.said(), ["earlier", "the final text"]);
            let (_, asked) = scene.telegram.send_text(TOKEN, &User::new(ANNA, "Anna"), "and?");
            assert_eq!(asked, earlier + 2);
        } else {
            let known = taken(&[earlier, earlier + 1]);
            assert_eq!(scene.find_lost(&known, &body).await, Ok(None));
            assert_eq!(scene.said().len(), 2);
        }
    }
    // What was sent as a preview and crashed before its id was kept takes the final text.
    let preview = scene.sender.send(&scene.anna, &plain("half")).await.unwrap();
    let known = taken(&[earlier, earlier + 1]);
    let found = scene.find_lost(&known, &plain("whole")).await;
    assert_eq!(found, Ok(Some((preview, false))));
    assert_eq!(scene.said().pop().unwrap(), "whole");
    // In whatever words a candidate is refused: it is not the one, and the search goes on.
    let lost = scene.sender.send(&scene.anna, &plain("lost")).await.unwrap();
    let weird = Fault::Status(400, "Bad Request: MESSAGE_IS_WEIRD".into());
    scene.telegram.fail_next("editMessageText", 1, weird.clone());
    let known: Vec<i64> = (2..lost - 1).collect();
    let found = scene.find_lost(&taken(&known), &plain("lost")).await;
    assert_eq!(found, Ok(Some((lost, true))));
    // One that is known and cannot be changed is sent anew.
    scene.telegram.fail_next("editMessageText", 1, weird);
    let edited = scene.sender.edit(&scene.anna, lost, &plain("changed"), true).await;
    assert_eq!(edited, Err(OutError::NoMessage));
}

#[tokio::test]
async fn a_server_that_is_away_was_certainly_not_reached() {
    let scene = scene().await;
    scene.telegram.stop();
    let error = scene.sender.client().get_me().await.unwrap_err();
    assert!(!error.sent_maybe() && error.is_passing(), "{error:?}");
    assert!(matches!(
        scene.sender.send(&scene.anna, &plain("a")).await,
        Err(OutError::Retry(_))
    ));
}

#[tokio::test]
async fn an_answer_that_telegram_cannot_draw_arrives_undrawn() {
    let scene = scene().await;
    let refusal = "Bad Request: ENTITIES_TOO_LONG".to_owned();
    scene.telegram.fail_next("sendMessage", 1, Fault::Status(400, refusal));
    scene.sender.send(&scene.anna, &render("**a**")[0]).await.unwrap();
    assert_eq!(scene.said(), ["a"]);
}

#[tokio::test]
async fn the_token_is_in_no_error() {
    let scene = scene().await;
    let url = scene.telegram.url();
    let mut errors = Vec::new();
    let unknown = client(&url, "999:secret-OTHER");
    errors.push(unknown.get_me().await.unwrap_err());
    assert_eq!(errors[0], TelegramError::Unauthorized);
    let known = client(&url, TOKEN);
    scene.telegram.fail_next("getMe", 1, Fault::DropBeforeHandling);
    errors.push(known.get_me().await.unwrap_err());
    scene
        .telegram
        .fail_next("getMe", 1, Fault::Status(400, format!("echo of {TOKEN}")));
    errors.push(known.get_me().await.unwrap_err());
    scene.telegram.stop();
    errors.push(known.get_me().await.unwrap_err());
    errors.push(client("not an address", TOKEN).get_me().await.unwrap_err());
    errors.push(client("http://no-such-host.invalid", TOKEN).get_me().await.unwrap_err());
    let shown = format!("{errors:?} {known:?} {:?}", scene.sender);
    let printed: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for text in [shown, printed.join(" ")] {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn updates_come_raw_and_are_confirmed_by_the_next_offset() {
    let scene = scene().await;
    let client = scene.sender.client();
    let updates = client.get_updates(0, Duration::ZERO, &["message"]).await.unwrap();
    assert_eq!(updates[0]["message"]["text"], "hello");
    let id = updates[0]["update_id"].as_i64().unwrap();
    let again = client.get_updates(id, Duration::ZERO, &["message"]).await.unwrap();
    assert_eq!(again, updates);
    let none: Vec<Value> = client.get_updates(id + 1, Duration::ZERO, &["message"]).await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_webhook_is_set_and_taken_away() {
    let scene = scene().await;
    let client = scene.sender.client();
    let secret = SecretString::from("a_secret");
    let set = client.set_webhook("https://deck.example/telegram/1", &secret, &["message"], 40);
    set.await.unwrap();
    let info = client.get_webhook_info().await.unwrap();
    assert_eq!(info.url, "https://deck.example/telegram/1");
    assert!(matches!(
        client.get_updates(0, Duration::ZERO, &[]).await,
        Err(TelegramError::Conflict(_))
    ));
    client.delete_webhook().await.unwrap();
    assert_eq!(client.get_webhook_info().await.unwrap().url, "");
    assert_eq!(scene.telegram.pending_dropped(TOKEN), 0);
}

#[tokio::test]
async fn profile_menu_and_buttons() {
    let scene = scene().await;
    let client = scene.sender.client();
    let me = client.get_me().await.unwrap();
    assert_eq!((me.id, me.username.as_str()), (123_456, "deck_bot"));
    client.set_my_commands(None, &texts::commands(Lang::En)).await.unwrap();
    client
        .set_my_commands(Some(Lang::Ru), &texts::commands(Lang::Ru))
        .await
        .unwrap();
    let keyboard = json!({"inline_keyboard": [[{"text": "Stop", "callback_data": "stop"}]]});
    let id = scene
        .sender
        .send_final(&scene.anna, &plain("a"), Some(keyboard))
        .await
        .unwrap();
    let query = scene.telegram.press_button(TOKEN, &User::new(ANNA, "Anna"), id, "stop");
    client
        .answer_callback_query(&query, Some("Stopped"), false)
        .await
        .unwrap();
    let answer = scene.telegram.callback_answer(TOKEN, &query).unwrap();
    assert_eq!(answer.text.as_deref(), Some("Stopped"));
    scene.sender.typing(&scene.anna).await.unwrap();
    assert_eq!(scene.telegram.chat_actions(TOKEN, ANNA), ["typing"]);
}

#[tokio::test]
async fn every_refusal_has_an_answer_of_its_own() {
    let scene = scene().await;
    let send = |description: &'static str, code: u16| {
        let scene = &scene;
        async move {
            let before = scene.said().len();
            scene
                .telegram
                .fail_next("sendMessage", 1, Fault::Status(code, description.to_owned()));
            let mut to = scene.anna;
            (to.reply_to, to.thread_id) = (Some(1), Some(9));
            let sent = scene.sender.send(&to, &render("**a**")[0]).await;
            (
                sent,
                scene.said().len() - before,
                scene.telegram.calls_of("sendMessage").pop().unwrap().params,
            )
        }
    };
    // Sent without what is gone.
    for gone in [
        "message to be replied not found",
        "replied message not found",
        "REPLY_MESSAGE_ID_INVALID",
    ] {
        let (sent, messages, call) = send(gone, 400).await;
        assert!(sent.is_ok() && messages == 1, "{gone}: {sent:?}");
        assert_eq!(
            (call.get("reply_parameters"), &call["message_thread_id"]),
            (None, &json!(9)),
            "{gone}"
        );
    }
    for gone in ["message thread not found", "TOPIC_DELETED"] {
        let (sent, messages, call) = send(gone, 400).await;
        assert!(sent.is_ok() && messages == 1, "{gone}: {sent:?}");
        assert_eq!(
            (call.get("message_thread_id"), call["reply_parameters"].is_object()),
            (None, true),
            "{gone}"
        );
    }
    for looks in ["can't parse entities: unsupported start tag", "ENTITY_BOUNDS_INVALID"] {
        let (sent, messages, call) = send(looks, 400).await;
        assert!(
            sent.is_ok() && messages == 1 && call.get("entities").is_none(),
            "{looks}: {sent:?}"
        );
    }
    // Not sent, and not tried again.
    let gone = |why: &str| Err(OutError::Gone(format!("Telegram refuses the request: {why}")));
    for (description, code, expected) in [
        ("Forbidden: bot was blocked by the user", 403, Err(OutError::Blocked)),
        ("Forbidden: user is deactivated", 403, Err(OutError::Blocked)),
        (
            "Bad Request: not enough rights to send text messages to the chat",
            400,
            Err(OutError::Blocked),
        ),
        ("Bad Request: CHAT_WRITE_FORBIDDEN", 400, Err(OutError::Blocked)),
        ("Bad Request: chat not found", 400, Err(OutError::NoChat)),
        (
            "Bad Request: message is too long",
            400,
            gone("Bad Request: message is too long"),
        ),
        (
            "Bad Request: BUTTON_DATA_INVALID",
            400,
            gone("Bad Request: BUTTON_DATA_INVALID"),
        ),
        // The token's fault: staff have to act, so the job waits long.
        ("Unauthorized", 401, Err(OutError::Retry(Duration::from_secs(5)))),
        ("Not Found", 404, Err(OutError::Retry(Duration::from_secs(300)))),
    ] {
        let calls = scene.telegram.calls_of("sendMessage").len();
        let (sent, messages, _) = send(description, code).await;
        assert_eq!((sent, messages), (expected, 0), "{description}");
        assert_eq!(scene.telegram.calls_of("sendMessage").len(), calls + 1, "{description}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_known_says_nothing_of_the_token() {
    let scene = scene().await;
    let client = scene.sender.client();
    let draft = client.send_message_draft(ANNA, None, 1, &plain("a")).await;
    assert_eq!(draft, Err(TelegramError::NoMethod));
    // What is no token at all is not found either, and means the token.
    let nonsense = self::client(&scene.telegram.url(), "nonsense");
    assert_eq!(nonsense.get_me().await.unwrap_err(), TelegramError::Unauthorized);
}

#[tokio::test]
async fn drafts_are_tried_until_they_are_refused() {
    let scene = scene().await;
    scene.telegram.drafts_are(Drafts::Taken);
    let draft = |text: &'static str| {
        let scene = &scene;
        async move { scene.sender.draft(&scene.anna, 5, &render(text)[0]).await }
    };
    assert!(scene.sender.drafts(&scene.anna));
    let group = Address {
        private: false,
        ..scene.anna
    };
    assert!(!scene.sender.drafts(&group));
    assert_eq!(draft("**one**").await, Ok(Drawn::Shown));
    let shown = scene.telegram.drafts(TOKEN, ANNA).remove(0);
    assert_eq!(
        (shown.text.as_str(), shown.entities.len(), shown.can_stop),
        ("one", 1, true)
    );
    // What passes, or is about this text only, changes nothing.
    for (fault, drawn) in [
        (Fault::Status(502, "Bad Gateway".into()), Drawn::Missed),
        (Fault::DropBeforeHandling, Drawn::Missed),
        (Fault::Html(502), Drawn::Missed),
        (
            Fault::Status(400, "Bad Request: can't parse entities".into()),
            Drawn::Shown,
        ),
    ] {
        scene.telegram.fail_next("sendMessageDraft", 1, fault.clone());
        assert_eq!(draft("**two**").await, Ok(drawn), "{fault:?}");
        assert!(scene.sender.drafts(&scene.anna), "{fault:?}");
    }
    scene.telegram.fail_next("sendMessageDraft", 1, Fault::RetryAfter(1));
    assert_eq!(draft("three").await, Ok(Drawn::Shown));
    assert!(
        !scene.sender.may_preview(&scene.anna).await,
        "the pause counts for all calls"
    );
    scene.telegram.block(TOKEN, ANNA);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(draft("four").await, Err(OutError::Blocked));
    scene.telegram.unblock(TOKEN, ANNA);
    assert!(scene.sender.drafts(&scene.anna));
    scene.telegram.drafts_are(Drafts::Refused);
    assert_eq!(draft("five").await, Ok(Drawn::Refused));
    assert!(!scene.sender.drafts(&scene.anna));
    assert!(!scene.sender.clone().drafts(&scene.anna), "clones know it too");
    // That was this chat's. What does not know the method says so for all, in Telegram's words or its own.
    let other = |chat_id| Address { chat_id, ..scene.anna };
    assert!(scene.sender.drafts(&other(8)));
    for status in [404, 405, 501] {
        let sender = Sender::new(scene.sender.client().clone(), Arc::new(Pacer::default()));
        scene.telegram.fail_next("sendMessageDraft", 1, Fault::Html(status));
        let drawn = sender.draft(&scene.anna, 5, &plain("six")).await;
        assert_eq!(drawn, Ok(Drawn::Refused), "{status}");
        assert!(!sender.drafts(&other(8)), "{status}");
    }
    assert!(!scene.sender.clone().with_drafts(false).drafts(&scene.anna));
}

/// Servers that are not Telegram's say in their own words that they do not know a method.
#[tokio::test]
async fn a_method_that_is_not_there_is_done_without_however_that_is_said() {
    for unknown in [
        Unknown::NotFound,
        Unknown::Page,
        Unknown::Framework,
        Unknown::NotImplemented,
    ] {
        let scene = scene().await;
        scene.telegram.manners(Manners {
            only: Some(&["sendMessage"]),
            unknown,
            ..Manners::default()
        });
        assert_eq!(
            scene.sender.draft(&scene.anna, 5, &plain("a")).await,
            Ok(Drawn::Refused),
            "{unknown:?}"
        );
        let id = scene.sender.send(&scene.anna, &plain("a")).await.unwrap();
        let edited = scene.sender.edit(&scene.anna, id, &plain("b"), true).await;
        assert_eq!(edited, Err(OutError::NoMessage), "{unknown:?}");
    }
}

#[tokio::test]
async fn nulls_and_what_is_left_out_are_read_as_absent() {
    for absent in [Absent::Null, Absent::AllButTheLeast] {
        let scene = scene().await;
        scene.telegram.manners(Manners {
            absent,
            ..Manners::default()
        });
        let client = scene.sender.client();
        assert_eq!(client.get_me().await.unwrap().id, 123_456, "{absent:?}");
        assert_eq!(client.get_webhook_info().await.unwrap().url, "");
        assert_eq!(client.get_updates(0, Duration::ZERO, &[]).await.unwrap().len(), 1);
        let id = scene.sender.send(&scene.anna, &plain("a")).await.unwrap();
        assert_eq!(scene.sender.edit(&scene.anna, id, &plain("b"), true).await, Ok(()));
    }
    let scene = scene().await;
    scene.telegram.manners(Manners {
        absent: Absent::Null,
        ..Manners::default()
    });
    scene.telegram.fail_next("sendMessage", 1, Fault::MigrateTo(-100));
    assert_eq!(
        scene.sender.send(&scene.anna, &plain("a")).await,
        Err(OutError::Moved(-100))
    );
}

#[tokio::test]
async fn a_call_that_takes_too_long_may_have_been_carried_out() {
    let scene = scene().await;
    let hasty = scene.sender.client().clone().with_timeout(Duration::from_millis(300));
    let sender = Sender::new(hasty, Arc::new(Pacer::default()));
    scene.telegram.fail_next("sendMessage", 1, Fault::Late(600));
    let body = plain("late");
    assert_eq!(sender.send(&scene.anna, &body).await, Err(OutError::Undecided));
    let arrived = scene
        .telegram
        .wait_message(TOKEN, ANNA, Duration::from_secs(5), |m| m.from_bot);
    let id = arrived.await.unwrap().id;
    let found = scene.find_lost(&taken(&[]), &body).await;
    assert_eq!(found, Ok(Some((id, true))));
    assert_eq!(scene.said(), ["late"]);
    // An edit is simply made again.
    scene.telegram.fail_next("editMessageText", 1, Fault::Late(600));
    sender.edit(&scene.anna, id, &plain("changed"), true).await.unwrap();
    assert_eq!(scene.said(), ["changed"]);
    // A connection that never came about has carried nothing. (An address that is set aside for documentation.)
    let nowhere = client("http://192.0.2.1:9", TOKEN).with_timeout(Duration::from_secs(5));
    let error = nowhere
        .send_message(ANNA, &body, None, None, None, None)
        .await
        .unwrap_err();
    assert!(error.is_passing() && !error.sent_maybe(), "{error:?}");
}

#[tokio::test]
async fn a_page_instead_of_json_is_judged_by_its_status() {
    let scene = scene().await;
    for (status, sent_maybe) in [(200, true), (502, true), (503, false), (403, false), (404, false)] {
        scene.telegram.fail_next("sendMessage", 1, Fault::Html(status));
        let sent = scene
            .sender
            .client()
            .send_message(ANNA, &plain("a"), None, None, None, None)
            .await;
        let error = sent.unwrap_err();
        assert!(error.is_passing(), "{status}: {error:?}");
        assert_eq!(error.sent_maybe(), sent_maybe, "{status}");
        assert!(!error.to_string().contains("nginx"), "{error}");
    }
    scene.telegram.fail_next("sendMessage", 1, Fault::Html(429));
    let error = scene
        .sender
        .client()
        .send_message(ANNA, &plain("a"), None, None, None, None)
        .await;
    assert!(matches!(error, Err(TelegramError::RetryAfter(_))), "{error:?}");
}

#[tokio::test]
async fn who_was_stopped_for_too_long_sends_nothing_more() {
    let scene = scene().await;
    let soon = |wait| Address {
        ours_until: Some(tokio::time::Instant::now() + Duration::from_millis(wait)),
        ..scene.anna
    };
    scene.sender.send(&soon(5000), &plain("in time")).await.unwrap();
    let late = soon(0);
    assert_eq!(scene.sender.send(&late, &plain("late")).await, Err(OutError::Stale));
    assert_eq!(scene.sender.begin(&late, &plain("late")).await, Ok(None));
    // Nor who was stopped between that look at the clock and the socket.
    let (client, body) = (scene.sender.client(), plain("late"));
    let written = client.send_message(ANNA, &body, None, None, None, late.ours_until);
    assert_eq!(written.await, Err(TelegramError::Stale));
    assert_eq!(scene.telegram.calls_of("sendMessage").len(), 1);
    // Not after a pause that outlasts it either; and with a new proof it goes on.
    scene.telegram.fail_next("sendMessage", 1, Fault::RetryAfter(1));
    let until = soon(500);
    assert_eq!(scene.sender.send(&until, &plain("b")).await, Err(OutError::Stale));
    assert_eq!(scene.telegram.calls_of("sendMessage").len(), 2);
    scene.sender.send(&soon(5000), &plain("b")).await.unwrap();
    assert_eq!(scene.said(), ["in time", "b"]);
    // A preview of before must not take the place of the answer that stands there now.
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(scene.sender.preview_edit(&late, 2, &plain("half")).await, Ok(false));
    // Nor must what was its last change: a newer answer may stand there.
    let edited = scene.sender.edit(&late, 2, &plain("late"), true).await;
    assert_eq!(edited, Err(OutError::Stale));
    assert_eq!(scene.said(), ["in time", "b"]);
}
