//! What people may type, in two languages, in private and in groups, whatever they call themselves.

use serde_json::{Value, json};
use test_support::{
    TestApp,
    app::{BOT_NAME, TOKEN},
    fake_telegram::User,
};

use crate::{anna, app, boris};

/// What the model was shown last, as (role, text).
fn last_context(app: &TestApp) -> Vec<(String, String)> {
    let body = app.provider.requests().last().unwrap().body.clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let messages = body["messages"].as_array().unwrap().clone();
    messages
        .iter()
        .map(|message| (text(&message["role"]), text(&message["content"])))
        .collect()
}

#[tokio::test]
async fn commands_answer_in_english_and_in_russian() {
    let app = app().with("OPENAI_MODEL", "fake-model,gpt-4o").start().await;
    for (person, words) in [
        (
            anna(),
            [
                ("/start", "Hello, Anna! I am deck_bot"),
                ("/help", "/usage — What is left of your limits"),
                ("/new", "A new conversation begins"),
                ("/model", "fake-model (chosen)"),
                ("/usage", "Your plan: free"),
                ("/stop", "Nothing is being written"),
                ("/model gpt-4o", "From now on gpt-4o answers."),
                ("/model wrong", "BD-NO-MODEL"),
                ("/model@deck_bot", "gpt-4o (chosen)"),
                ("/HELP", "What I can do"),
                ("/nonsense", "What I can do"),
            ],
        ),
        (
            boris(),
            [
                ("/start", "Здравствуйте, Борис! Я deck_bot"),
                ("/help", "/usage — Сколько осталось от лимитов"),
                ("/new", "Начинаем новый разговор"),
                ("/model", "fake-model (выбрана)"),
                ("/usage", "Ваш тариф: free"),
                ("/stop", "Сейчас я ничего не пишу"),
                ("/model gpt-4o", "Теперь отвечает gpt-4o."),
                ("/model wrong", "Модели «wrong» я не знаю"),
                ("/model@deck_bot", "gpt-4o (выбрана)"),
                ("/HELP", "Что я умею"),
                ("/nonsense", "Что я умею"),
            ],
        ),
    ] {
        for (command, words) in words {
            let asked = app.say(&person, command);
            let reply = app.reply(person.id, asked).await;
            assert!(reply.text.contains(words), "{command} was answered {:?}", reply.text);
        }
        // The chosen model is the one that answers.
        app.say(&person, "who are you?");
        app.answer(person.id, "Echo: who are you?").await;
        assert_eq!(app.provider.requests().last().unwrap().body["model"], "gpt-4o");
    }
    assert_eq!(app.provider.requests().len(), 2, "a command reached the model");
    // The menus that Telegram shows.
    let menus = app.telegram.calls_of("setMyCommands");
    assert!(menus.iter().any(|call| call.params["language_code"] == "ru"));
    app.finish().await;
}

#[tokio::test]
async fn models_of_the_plan_are_what_can_be_chosen_and_what_answers() {
    let app = app().with("OPENAI_MODEL", "fake-model,gpt-4o").start().await;
    let anna = anna();
    let say = async |text: &str| {
        let asked = app.say(&anna, text);
        app.reply(anna.id, asked).await.text
    };
    app.sql_execute("UPDATE plans SET models = '{gpt-4o}'").await;
    let offered = say("/model").await;
    assert!(
        offered.contains("gpt-4o (chosen)") && !offered.contains("fake-model"),
        "{offered}"
    );
    let refused = say("/model fake-model").await;
    assert!(
        refused.contains("fake-model is not part of your plan (free)"),
        "{refused}"
    );
    assert!(refused.ends_with("BD-NO-MODEL"), "{refused}");
    assert_eq!(say("who are you?").await, "Echo: who are you?");
    assert_eq!(app.provider.requests().last().unwrap().body["model"], "gpt-4o");

    // What was chosen before is lost: once the answer says so.
    assert!(say("/model gpt-4o").await.contains("From now on gpt-4o answers."));
    app.sql_execute("UPDATE plans SET models = '{fake-model}'").await;
    let told = say("and now?").await;
    assert!(told.starts_with("Echo: and now?"), "{told}");
    assert!(
        told.contains("gpt-4o is no longer part of your plan: fake-model has answered."),
        "{told}"
    );
    assert_eq!(app.provider.requests().last().unwrap().body["model"], "fake-model");
    assert_eq!(say("again").await, "Echo: again");
    app.finish().await;
}

#[tokio::test]
async fn usage_tells_the_bars_after_an_answer() {
    let app = app()
        .with_limits("messages_per_day", "200")
        .with_limits("money_per_month", "2.50")
        .start()
        .await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    let asked = app.say(&anna, "/usage");
    let reply = app.reply(anna.id, asked).await.text;
    assert!(reply.contains("Messages today: 1 of 200, starts again 20"), "{reply}");
    assert!(reply.contains("of $2.50"), "{reply}");
    app.finish().await;
}

#[tokio::test]
async fn the_model_sees_the_history_until_new() {
    let app = app().start().await;
    let anna = anna();
    for text in ["My name is Anna", "/usage", "What is my name?"] {
        let asked = app.say(&anna, text);
        app.reply(anna.id, asked).await;
    }
    let context = last_context(&app);
    assert_eq!(context[0].0, "system");
    let said: Vec<(&str, &str)> = context[1..]
        .iter()
        .map(|(role, text)| (role.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            ("user", "My name is Anna"),
            ("assistant", "Echo: My name is Anna"),
            ("user", "What is my name?")
        ]
    );
    for text in ["/new", "And now?"] {
        let asked = app.say(&anna, text);
        app.reply(anna.id, asked).await;
    }
    assert_eq!(last_context(&app)[1..], [("user".to_owned(), "And now?".to_owned())]);
    app.finish().await;
}

#[tokio::test]
async fn what_is_not_text_is_declined_politely() {
    let app = app().start().await;
    for (person, words) in [
        (anna(), "I can read only text"),
        (boris(), "Пока я понимаю только текст"),
    ] {
        let chat = json!({"id": person.id, "type": "private", "first_name": person.first_name});
        let from = json!({"id": person.id, "is_bot": false, "first_name": person.first_name,
            "language_code": person.language_code});
        for (number, content) in [
            json!({"photo": [{"file_id": "p", "file_unique_id": "p", "width": 10, "height": 10, "file_size": 5}], "caption": "look"}),
            json!({"voice": {"file_id": "v", "file_unique_id": "v", "duration": 3, "file_size": 5}}),
            json!({"sticker": {"file_id": "s", "file_unique_id": "s", "type": "regular", "width": 9, "height": 9,
                "is_animated": false, "is_video": false}}),
            json!({"document": {"file_id": "d", "file_unique_id": "d", "file_size": 5}}),
        ]
        .into_iter()
        .enumerate()
        {
            let asked = 100 + 10 * i64::try_from(number).unwrap();
            let mut message = json!({"message_id": asked, "date": 1_795_378_000, "chat": chat, "from": from});
            message.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            app.telegram.push_update(TOKEN, json!({"message": message}));
            let reply = app.reply(person.id, asked).await;
            assert!(reply.text.contains(words), "{content} was answered {:?}", reply.text);
        }
    }
    assert!(app.provider.requests().is_empty());
    app.finish().await;
}

/// A message in a group.
fn in_group(id: i64, from: &User, text: &str, reply_to_bot: bool) -> Value {
    let chat = json!({"id": -100_500, "type": "supergroup", "title": "Friends"});
    let mut message = json!({"message_id": id, "date": 1_795_378_000, "chat": chat, "text": text,
        "from": {"id": from.id, "is_bot": false, "first_name": from.first_name, "language_code": "en"}});
    if reply_to_bot {
        message["reply_to_message"] = json!({"message_id": id - 1, "date": 1_795_378_000, "chat": chat, "text": "hi",
            "from": {"id": 123_456, "is_bot": true, "first_name": BOT_NAME, "username": BOT_NAME}});
    }
    json!({"message": message})
}

#[tokio::test]
async fn in_a_group_only_what_is_meant_for_the_bot_is_answered() {
    let app = app().start().await;
    let (anna, group) = (anna(), -100_500);
    app.say(&anna, "a private secret");
    app.answer(anna.id, "Echo: a private secret").await;
    let push = |id, text: &str, reply| app.telegram.push_update(TOKEN, in_group(id, &anna, text, reply));
    push(10, "talk among friends", false);
    push(11, "/help@other_bot", false);
    push(12, "hello @deck_bot_too", false);
    push(20, "hello @deck_bot", false);
    app.answer(group, "Echo: hello").await;
    push(30, "and a reply", true);
    let reply = app.answer(group, "Echo: and a reply").await;
    assert_eq!(reply.reply_to, Some(30), "in a group it must be seen who is answered");
    let context = app.provider.requests().last().unwrap().body.to_string();
    assert!(
        !context.contains("private secret"),
        "a private conversation reached a group: {context}"
    );
    assert!(!context.contains("talk among friends"), "{context}");
    push(40, "/help@deck_bot", false);
    app.answer_with(group, "What I can do").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(group).len(), 3, "{:?}", app.said_by_bot(group));
    app.finish().await;
}

#[tokio::test]
async fn a_blocked_user_is_told_so_and_costs_nothing() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    app.sql_execute("UPDATE users SET blocked_at = now(), blocked_reason = 'spam', blocked_by = 'test'")
        .await;
    for text in ["let me in", "/start", "/model gpt-4o"] {
        let asked = app.say(&anna, text);
        let reply = app.reply(anna.id, asked).await;
        assert!(
            reply.text.ends_with("BD-BLOCKED"),
            "{text} was answered {:?}",
            reply.text
        );
        assert!(
            reply.entities.iter().any(|entity| entity["type"] == "code"),
            "{:?}",
            reply.entities
        );
        assert!(!reply.text.contains("spam"), "the reason is for staff");
    }
    assert_eq!(app.provider.requests().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn hostile_names_change_nothing_around_them() {
    let app = app().start().await;
    let long = "я".repeat(4096);
    let names = [
        "*bold* _x_ [link](https://evil.example) <b>html</b> `code`",
        "\u{202e}gnp.exe\u{202c}\u{2066}",
        long.as_str(),
        "{ $bot } {name} %s \\n",
        "\u{200b}",
        "a\nb\nBD-INTERNAL",
    ];
    for (id, name) in (8000..).zip(names) {
        let person = User::new(id, name).language("en");
        let asked = app.say(&person, "/start");
        let reply = app.reply(person.id, asked).await;
        assert!(
            reply.text.contains("I am deck_bot."),
            "{name:?} was answered {:?}",
            reply.text
        );
        assert!(reply.entities.is_empty(), "{name:?} became {:?}", reply.entities);
        assert!(
            !reply
                .text
                .chars()
                .any(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'))
        );
        assert!(reply.text.encode_utf16().count() < 400, "{}", reply.text);
        // And the model is asked as by anybody else.
        app.say(&person, "hi");
        app.answer(person.id, "Echo: hi").await;
    }
    let first = app.said_by_bot(8000).remove(0);
    assert!(
        first.starts_with("Hello, *bold* _x_ [link](https://evil.example) <b>html</b> `code`!"),
        "{first}"
    );
    app.finish().await;
}
