//! What strangers write is shown as they wrote it, and never becomes part of a page.

use test_support::{
    TestApp,
    app::{PATIENCE, Visitor, eventually},
    fake_telegram::User,
};

use crate::app;

const PLAYGROUND: &str = "01930000-0000-7000-8000-0000000000b0";

/// Each tries to leave another place: text, an attribute of either quote, a script's JSON, a script altogether, a template.
const ATTACKS: [&str; 8] = [
    "<script>hostile(1)</script>",
    "</script><i id=hostile>",
    "</title></textarea><i id=hostile>",
    "\"><img src=x onerror=hostile(2)>",
    "' onfocus='hostile(3)",
    "\" onfocus=\"hostile(4)",
    "<!--<script>hostile(5)",
    "{{7*6}}${7*6}\u{202e}\u{2028}]]>",
];

/// None of these stands in a page unless an attack came through, wherever it is.
const BROKEN_OUT: [&str; 5] = ["<script>hostile", "<i id=hostile", "<img src=x", "<!--<script", "\0"];

/// Every script of the page is one of ours: it has the nonce of the policy that the page was sent with. Returns their contents.
fn scripts<'a>(body: &'a str, policy: &str, path: &str) -> Vec<&'a str> {
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next());
    let nonce = format!("nonce=\"{}\"", nonce.unwrap());
    // As a browser reads it: a script lasts until the next `</script`, whatever quotes are around that.
    let mut contents = Vec::new();
    let mut rest = body;
    while let Some(start) = rest.find("<script") {
        let (tag, after) = rest[start..].split_once('>').unwrap();
        assert!(tag.contains(&nonce), "{path} has a script that is not ours: {tag}");
        let end = after.find("</script").unwrap();
        contents.push(&after[..end]);
        rest = &after[end..];
    }
    contents
}

fn holds_none(body: &str, path: &str) {
    for part in BROKEN_OUT {
        if let Some(at) = body.find(part) {
            let before = body[..at].chars().rev().take(60).collect::<Vec<_>>();
            let before: String = before.into_iter().rev().collect();
            let after: String = body[at..].chars().take(80).collect();
            panic!("{path} holds {part:?}: …{before}{after}…");
        }
    }
}

/// What stands between `<` and `>`, outside of an attribute's value. We write `"` around those, and nothing else.
fn tags(html: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut characters = html.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '<' || !characters.peek().is_some_and(char::is_ascii_alphabetic) {
            continue;
        }
        let (mut tag, mut is_value) = (String::new(), false);
        for character in characters.by_ref() {
            match character {
                '"' => is_value = !is_value,
                '>' if !is_value => break,
                _ if !is_value => tag.push(character),
                _ => {}
            }
        }
        tags.push(tag);
    }
    tags
}

/// `shows`: whether the page is one where `attack` is to be read.
async fn is_whole(staff: &Visitor, path: &str, attack: &str, shows: bool) {
    let page = staff.page(path).await;
    assert!(page.status.is_success(), "{path}: {page:?}");
    holds_none(&page.body, path);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let scripts = scripts(&page.body, policy, path);
    // The frame's end, and the last script of all, which stands behind it.
    let whole = page.body.contains("</main>") && page.body.trim_end().ends_with("</script>");
    assert!(whole, "{path} breaks off");
    let mut text = page.body.clone();
    for script in &scripts {
        assert!(
            !script.contains("<!--") && !script.contains("<script"),
            "{path}: {script}"
        );
        text = text.replacen(script, "", 1);
    }
    let tags = tags(&text);
    assert!(tags.len() > 50, "{path}: {} tags", tags.len());
    for tag in tags {
        assert!(!tag.contains("hostile") && !tag.contains(" on"), "{path} has <{tag}>");
    }
    if shows {
        // What is left is HTML; read back, it is what was written.
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&#x27;", "'")
            .replace("&amp;", "&");
        assert!(text.contains(attack), "{path} does not show {attack:?}");
        // And the script that wakes the page up gets the same words.
        let resources = scripts.iter().any(|script| script.contains("__RESOLVED_RESOURCES"));
        assert!(resources, "{path} brings nothing for its script");
    }
}

fn encoded(text: &str) -> String {
    let mut url = reqwest::Url::parse("http://x/").unwrap();
    url.query_pairs_mut().append_pair("", text);
    url.query().unwrap().trim_start_matches('=').to_owned()
}

/// Somebody whose name and message are an attack, blocked with another as the reason, on a plan named so.
async fn attack(app: &TestApp, staff: &Visitor, number: usize, attack: &str) {
    let number = i64::try_from(number).unwrap();
    let person = User::new(9000 + number, attack).username(&format!("person{number}"));
    let asked = app.say(&person, &format!("{attack}\0 says I"));
    app.reply(person.id, asked).await;
    let made = staff.post("/api/fn/plans/create", &[("name", attack)]).await;
    assert_eq!(made.status, 200, "{made:?}");
    let user = app
        .sql_one(&format!("SELECT id FROM users WHERE external_id = {}", person.id))
        .await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let conversation = app
        .sql_one(&format!("SELECT id FROM conversations WHERE user_id = '{user}'"))
        .await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let blocked = staff
        .post("/api/fn/users/block", &[("id", &user), ("reason", attack)])
        .await;
    assert_eq!(blocked.status, 200, "{blocked:?}");

    for (path, shows) in [
        (format!("/users/{user}"), true),
        (format!("/conversations/{conversation}"), true),
        (format!("/users?q={}", encoded(attack)), true),
        ("/users".to_owned(), true),
        ("/plans".to_owned(), true),
        ("/audit".to_owned(), true),
        (format!("/audit?actor={0}&action={0}&target={0}", encoded(attack)), true),
        ("/".to_owned(), false),
        ("/bots".to_owned(), false),
    ] {
        is_whole(staff, &path, attack, shows).await;
    }
    // Addresses as well, and for people who are not signed in.
    let stranger = app.visitor();
    for path in [
        format!("/sign-in?next=/{}", encoded(attack)),
        format!("/setup?token={}", encoded(attack)),
    ] {
        let page = stranger.page(&path).await;
        holds_none(&page.body, &path);
    }
}

#[tokio::test]
async fn what_strangers_write_never_becomes_part_of_a_page() {
    let app = app().unlimited().start().await;
    let staff = app.sign_in("owner").await;
    for (number, text) in ATTACKS.into_iter().enumerate() {
        attack(&app, &staff, number, text).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn nor_does_what_staff_write_or_a_bot_is_called() {
    let app = app().unlimited().without("OPENAI_API_KEY").start().await;
    let staff = app.sign_in("owner").await;
    for (number, attack) in ATTACKS.into_iter().enumerate() {
        app.sql_execute(&format!(
            "UPDATE bots SET name = {} WHERE transport = 'telegram'",
            literal(attack)
        ))
        .await;
        app.sql_execute(&format!("UPDATE staff SET name = {}", literal(attack)))
            .await;
        let sent = staff
            .post("/api/fn/playground/send", &[("bot", PLAYGROUND), ("text", attack)])
            .await;
        assert_eq!(sent.status, 200, "{sent:?}");
        eventually(PATIENCE, "an answer in the playground", || async {
            let rows = app
                .sql("SELECT body FROM browser_messages WHERE author = 'bot' AND complete")
                .await;
            if rows.len() > number {
                Ok(())
            } else {
                Err(format!("{rows:?}"))
            }
        })
        .await;
        is_whole(&staff, &format!("/bots/{PLAYGROUND}/playground"), attack, true).await;
        is_whole(&staff, "/bots", attack, true).await;
        is_whole(&staff, "/", attack, true).await;
        is_whole(&staff, "/audit", attack, false).await;
    }
    app.finish().await;
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn a_link_puts_no_words_of_others_into_our_own_error_box() {
    let app = app().start().await;
    app.sign_in("owner").await;
    let shown = async |code: &str, detail: &str| {
        let error = serde_json::json!({ "code": code, "detail": detail }).to_string();
        let error = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, error);
        let path = format!("/sign-in?__path=/api/fn/auth/sign-in&__err={}", encoded(&error));
        app.visitor().page(&path).await.body
    };
    for code in [
        "BD-INPUT",
        "BD-CONFLICT",
        "BD-TELEGRAM",
        "BD-THROTTLED",
        "BD-FORBIDDEN",
        "BD-INTERNAL",
    ] {
        let page = shown(code, "Call +7 900 123-45-67").await;
        assert!(page.contains(code), "the box itself is shown");
        assert!(!page.contains("900 123"), "{code}");
    }
    let page = shown("BD-CONFLICT", "the user is not blocked").await;
    assert!(page.contains("The user is not blocked."));
    app.finish().await;
}

#[tokio::test]
async fn a_refusal_shows_what_was_sent_and_nothing_more() {
    let app = app().start().await;
    let staff = app.sign_in("owner").await;
    for attack in ATTACKS {
        // By a browser without script: what was typed may come back in the page.
        for (path, fields) in [
            ("/api/fn/plans/create", vec![("name", attack.repeat(20))]),
            (
                "/api/fn/bots/add",
                vec![("token", attack.to_owned()), ("mode", "polling".to_owned())],
            ),
            (
                "/api/fn/auth/sign-in",
                vec![
                    ("email", attack.to_owned()),
                    ("password", attack.to_owned()),
                    ("next", format!("/{attack}")),
                ],
            ),
        ] {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut page = staff.submit(path, &fields).await;
            for _ in 0..3 {
                let Some(to) = page.location.clone() else { break };
                assert!(to.starts_with('/') || to.starts_with(&app.base), "{path} leads to {to}");
                page = staff.page(to.trim_start_matches(app.base.as_str())).await;
            }
            holds_none(&page.body, path);
        }
    }
    app.finish().await;
}
