use serde_json::json;

use super::*;

fn bot() -> BotRecord {
    BotRecord {
        id: domain::BotId(uuid::Uuid::nil()),
        transport: domain::views::BotTransport::Telegram,
        name: "Deck".into(),
        username: Some("deck_bot".into()),
        mode: domain::views::IntakeMode::Polling,
        enabled: true,
        token: Some("42:AAsecret".to_owned().into()),
        persona: String::new(),
        model: None,
        cache: Default::default(),
        restarts: 0,
    }
}

fn update(chat: Value, text: &str) -> Value {
    json!({ "update_id": 1, "message": {
        "message_id": 5, "date": 1_795_378_000, "chat": chat, "text": text, "entities": [],
        "from": { "id": 77, "is_bot": false, "first_name": "Anna", "language_code": "ru" },
    }})
}

fn private() -> Value {
    json!({"id": 77, "type": "private", "first_name": "Anna"})
}

fn group() -> Value {
    json!({"id": -100, "type": "supergroup", "title": "Friends"})
}

fn at() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

/// What the model is asked, when the bot is meant at all.
fn heard(update: &Value) -> Option<String> {
    match event(&bot(), update, at()) {
        Event::Text(incoming) | Event::Unsupported(incoming) => Some(incoming.text),
        Event::Ignored => None,
        event => panic!("{event:?}"),
    }
}

#[test]
fn a_private_text_is_understood() {
    let event = event(&bot(), &update(private(), "hello"), at());
    let Event::Text(incoming) = event else {
        panic!("{event:?}")
    };
    assert_eq!(
        (incoming.text.as_str(), incoming.chat_kind.as_str(), incoming.message_id),
        ("hello", "private", 5)
    );
    assert_eq!(incoming.language.as_deref(), Some("ru"));
    // Nothing is cut out of what somebody says to the bot alone.
    assert_eq!(
        heard(&update(private(), "are you @deck_bot?")).as_deref(),
        Some("are you @deck_bot?")
    );
}

#[test]
fn in_a_group_without_entities_only_what_is_meant_for_the_bot_is_heard() {
    for (text, expected) in [
        ("hello all", None),
        ("hello @deck_bot", Some("hello")),
        ("@Deck_Bot, how are you?", Some("how are you?")),
        ("привет @deck_bot, как дела?", Some("привет, как дела?")),
        ("hello @deck_bot_2", None),
        ("/help", Some("/help")),
        ("/help@deck_bot", Some("/help@deck_bot")),
        ("/help@other_bot", None),
    ] {
        assert_eq!(heard(&update(group(), text)).as_deref(), expected, "{text}");
    }
}

#[test]
fn entities_say_who_is_meant_in_utf16_units() {
    let text = |text: &str, entities: Value| {
        let mut update = update(group(), text);
        update["message"]["entities"] = entities;
        heard(&update)
    };
    let entity = |kind: &str, offset: usize, length: usize| json!({"type": kind, "offset": offset, "length": length});
    // Four units of two smiles, and a space.
    let smiles = "😀😀 @deck_bot who is it?";
    assert_eq!(
        text(smiles, json!([entity("mention", 5, 9)])).as_deref(),
        Some("😀😀 who is it?")
    );
    assert_eq!(
        text(smiles, json!([entity("mention", 3, 9)])),
        None,
        "counted in characters"
    );
    // The words of a quotation or of code are no mention.
    assert_eq!(text("see @deck_bot", json!([entity("code", 4, 9)])), None);
    assert_eq!(
        text(
            "see @deck_bot",
            json!([entity("mention", 4, 9), entity("novelty", 0, 3)])
        )
        .as_deref(),
        Some("see")
    );
    // A mention without an @name carries the person.
    let named = |user: Value| {
        let mut entity = entity("text_mention", 0, 4);
        entity["user"] = user;
        text("Deck: two lines\nof text", json!([entity]))
    };
    assert_eq!(
        named(json!({"id": 42, "is_bot": true, "first_name": "Deck"})).as_deref(),
        Some("two lines\nof text")
    );
    assert_eq!(named(json!({"id": 43, "is_bot": true, "first_name": "Deck"})), None);
    // Commands of others are theirs; without a name they are everybody's, at the beginning.
    assert_eq!(
        text(
            "/help@other_bot @deck_bot",
            json!([entity("bot_command", 0, 15), entity("mention", 16, 9)])
        ),
        None
    );
    assert!(text("/help", json!([entity("bot_command", 0, 5)])).is_some());
    assert_eq!(text("try /help", json!([entity("bot_command", 4, 5)])), None);
    assert!(text("try /help@deck_bot", json!([entity("bot_command", 4, 14)])).is_some());
    // What does not lie in the text, or cuts a character, is nothing.
    for (offset, length) in [(5, 10), (0, usize::MAX), (usize::MAX, 2), (1, 2), (100, 1)] {
        assert_eq!(
            text("😀😀 @deck_bot", json!([entity("mention", offset, length)])),
            None,
            "{offset} {length}"
        );
    }
    assert!(text("x", json!([entity("mention", 0, 0)])).is_none());
}

#[test]
fn captions_and_replies_count_too() {
    let mut picture = update(group(), "");
    let message = picture["message"].as_object_mut().unwrap();
    message.remove("text");
    message.insert("photo".into(), json!([]));
    message.insert("caption".into(), json!("@deck_bot look"));
    message.insert(
        "caption_entities".into(),
        json!([{"type": "mention", "offset": 0, "length": 9}]),
    );
    assert_eq!(heard(&picture).as_deref(), Some("look"));
    let reply = |from: Value| {
        let mut update = update(group(), "and then?");
        update["message"]["reply_to_message"] = json!({"message_id": 1, "from": from});
        heard(&update)
    };
    assert!(reply(json!({"id": 42, "is_bot": true})).is_some());
    assert!(reply(json!({"id": 9, "is_bot": true, "username": "Deck_bot"})).is_some());
    assert!(reply(json!({"id": 9, "is_bot": true, "username": "other_bot"})).is_none());
    let mut other = update(group(), "/help@other_bot");
    other["message"]["reply_to_message"] = json!({"message_id": 1, "from": {"id": 42, "is_bot": true}});
    assert_eq!(heard(&other), None);
}

#[test]
fn parts_are_joined_in_the_order_of_their_message_ids_and_one_mention_is_enough() {
    let part = |id: i64, text: &str| {
        let mut part = update(group(), text);
        part["message"]["message_id"] = json!(id);
        part
    };
    let parts = [part(7, "third"), part(5, "@deck_bot first"), part(6, "second")];
    let event = gathered(&bot(), &parts.iter().collect::<Vec<_>>(), at());
    let Event::Text(incoming) = event else {
        panic!("{event:?}")
    };
    assert_eq!(incoming.text, "first\nsecond\nthird");
    assert_eq!(incoming.message_id, 7);
    let others = [part(7, "third"), part(5, "first")];
    assert!(matches!(
        gathered(&bot(), &others.iter().collect::<Vec<_>>(), at()),
        Event::Ignored
    ));
    // The newest versions, whichever kind of update brought them.
    let edited = json!({"update_id": 9, "edited_message": part(6, "2nd")["message"]});
    assert_eq!(text_now(&bot(), &[part(7, "third"), edited]), "2nd\nthird");
}

#[test]
fn edits_and_moves_are_told_apart() {
    let edited = json!({"update_id": 9, "edited_message": update(private(), "hello!")["message"]});
    assert!(matches!(event(&bot(), &edited, at()), Event::Edited(incoming) if incoming.text == "hello!"));
    let mut service = update(json!({"id": -5, "type": "group", "title": "Friends"}), "");
    service["message"].as_object_mut().unwrap().remove("text");
    service["message"]["migrate_to_chat_id"] = json!(-100);
    assert!(matches!(
        event(&bot(), &service, at()),
        Event::Moved { from: -5, to: -100 }
    ));
    let mut service = update(group(), "");
    service["message"].as_object_mut().unwrap().remove("text");
    service["message"]["migrate_from_chat_id"] = json!(-5);
    assert!(matches!(
        event(&bot(), &service, at()),
        Event::Moved { from: -5, to: -100 }
    ));
}

#[test]
fn content_of_every_kind_is_noticed_and_notes_are_not() {
    let mut update = update(private(), "");
    let message = update["message"].as_object_mut().unwrap();
    message.remove("text");
    message.remove("entities");
    for (kind, body) in [
        ("voice", json!({"file_id": "v", "file_unique_id": "v", "duration": 3})),
        ("hologram", json!({})),
        ("dice", json!({"emoji": "x", "value": 70})),
    ] {
        let mut update = update.clone();
        update["message"][kind] = body;
        let noticed = matches!(event(&bot(), &update, at()), Event::Unsupported(_));
        assert_eq!(noticed, kind != "hologram", "{kind}");
    }
}

#[test]
fn what_cannot_be_read_is_ignored_and_what_is_new_in_it_is_not_in_the_way() {
    for body in [
        json!({"novelty": {"x": 1}}),
        json!({"message": {"x": 1}}),
        json!({"message": {"message_id": 5, "chat": {"id": 9, "type": "hologram"}, "from": {"id": 1}, "text": "x"}}),
    ] {
        assert!(matches!(event(&bot(), &body, at()), Event::Ignored), "{body}");
    }
    let mut novel = update(private(), "tomorrow at nine");
    novel["message"]["entities"] = json!([{"type": "date_time", "offset": 0, "length": 8, "unix_time": 1}]);
    assert_eq!(heard(&novel).as_deref(), Some("tomorrow at nine"));
}

/// Telegram shows them as one bot, the same in all groups; each group counts as a person of its own.
#[test]
fn anonymous_administrators_are_heard_in_the_name_of_their_group_and_other_bots_are_not() {
    let mut update = update(group(), "@deck_bot hello");
    update["message"]["from"] =
        json!({"id": 1_087_968_824, "is_bot": true, "first_name": "Group", "username": "GroupAnonymousBot"});
    assert_eq!(heard(&update), None, "a bot of somebody");
    update["message"]["sender_chat"] = group();
    let Event::Text(incoming) = event(&bot(), &update, at()) else {
        panic!("not heard")
    };
    assert_eq!(
        (incoming.user_external_id, incoming.user_name.as_str()),
        (-100, "Friends")
    );
    assert_eq!((incoming.username, incoming.text.as_str()), (None, "hello"));
}

/// Some servers write `null` for what is absent, others leave out all that can be done without.
#[test]
fn nulls_are_as_good_as_nothing_and_little_is_needed() {
    let mut update = update(private(), "hello");
    for name in ["edited_message", "callback_query", "my_chat_member", "poll"] {
        update[name] = Value::Null;
    }
    for name in [
        "message_thread_id",
        "is_topic_message",
        "caption",
        "entities",
        "caption_entities",
        "reply_to_message",
        "photo",
        "voice",
        "migrate_to_chat_id",
        "successful_payment",
        "media_group_id",
    ] {
        update["message"][name] = Value::Null;
    }
    for name in ["last_name", "username", "language_code", "is_bot"] {
        update["message"]["from"][name] = Value::Null;
    }
    update["message"]["chat"]["title"] = Value::Null;
    let event = |update: &Value| event(&bot(), update, at());
    assert!(matches!(event(&update), Event::Text(incoming) if incoming.text == "hello"));
    assert_eq!(
        text_now(&bot(), &[json!({"message": null, "edited_message": update["message"]})]),
        "hello"
    );

    let entity = json!({"type": "mention", "offset": 0, "length": 9, "url": null, "user": null, "language": null});
    let mut group = self::update(group(), "@deck_bot hello");
    group["message"]["entities"] = json!([entity, {"type": null, "offset": null}]);
    group["message"]["reply_to_message"] = json!({"message_id": 1, "from": null});
    assert_eq!(heard(&group).as_deref(), Some("hello"));

    let member = json!({"status": "left", "user": {"id": 42, "is_bot": true, "first_name": "Deck", "last_name": null}});
    let left = json!({"update_id": 2, "message": null, "my_chat_member": {
        "chat": {"id": -5, "type": "group", "title": "Friends", "username": null}, "date": 1,
        "from": {"id": 77, "is_bot": false, "first_name": "Anna", "language_code": null},
        "old_chat_member": {"status": "member", "user": member["user"], "until_date": null},
        "new_chat_member": member, "invite_link": null, "via_join_request": null, "via_chat_folder_invite_link": null,
    }});
    assert!(matches!(
        event(&left),
        Event::Membership {
            chat_id: -5,
            closed: true
        }
    ));

    let least = json!({"message": {"message_id": 1, "chat": {"id": 77}, "from": {"id": 77}, "text": "hello"}});
    assert!(matches!(event(&least), Event::Text(incoming) if incoming.chat_kind == "private"));
    let least = json!({"message": {"message_id": 1, "chat": {"id": -7}, "from": {"id": 77}, "text": "hello"}});
    assert!(matches!(event(&least), Event::Ignored), "others talk in a group");
}
