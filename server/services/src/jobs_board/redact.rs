//! An update with everything personal left out: its shape helps to find a fault, its texts, names and numbers do not leave here.

use serde_json::Value;

/// Fields whose number says nothing about anybody.
const NUMBERS: &[&str] = &[
    "date",
    "duration",
    "edit_date",
    "file_size",
    "height",
    "length",
    "message_id",
    "message_thread_id",
    "offset",
    "update_id",
    "width",
];
/// Fields whose text is one of a few words of the Bot API's own.
const WORDS: &[&str] = &["language_code", "status", "type"];
/// Longer outlines would help nobody; an update can hold thousands of entities.
const LINES: usize = 120;
const DEPTH: usize = 8;
const ITEMS: usize = 5;

/// One line for each field, indented: its name and, in place of what it holds, what kind of thing that is. A text is `"…"` with
/// the number of its characters, a number is `#`.
pub(super) fn outline(update: &Value) -> String {
    let mut lines = Vec::new();
    match update {
        Value::Object(_) => inside(update, 0, &mut lines),
        other => lines.push(shown("", other)),
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        lines.push("…".to_owned());
    }
    lines.join("\n")
}

fn inside(value: &Value, depth: usize, lines: &mut Vec<String>) {
    if lines.len() > LINES {
        return;
    }
    let indent = "  ".repeat(depth);
    let field = |name: &str, value: &Value, lines: &mut Vec<String>| {
        let holds = matches!(value, Value::Object(map) if !map.is_empty())
            || matches!(value, Value::Array(items) if !items.is_empty());
        if holds && depth < DEPTH {
            let count = value.as_array().map(|items| format!(" ×{}", items.len()));
            lines.push(format!("{indent}{name}:{}", count.unwrap_or_default()));
            inside(value, depth + 1, lines);
        } else {
            lines.push(format!("{indent}{name}: {}", shown(name, value)));
        }
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                field(&safe_name(name), value, lines);
            }
        }
        Value::Array(items) => {
            for item in items.iter().take(ITEMS) {
                field("-", item, lines);
            }
            if items.len() > ITEMS {
                lines.push(format!("{indent}…"));
            }
        }
        _ => {}
    }
}

fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) if NUMBERS.contains(&name) => number.to_string(),
        Value::Number(_) => "#".to_owned(),
        Value::String(text) if WORDS.contains(&name) && is_word(text) => text.clone(),
        Value::String(text) => format!("\"…\" {}", text.chars().count()),
        Value::Array(items) => format!("[…] {}", items.len()),
        Value::Object(fields) => format!("{{…}} {}", fields.len()),
    }
}

fn is_word(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

/// Names of fields come from outside, too.
fn safe_name(name: &str) -> String {
    let is_name =
        (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { name.to_owned() } else { "?".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_shape_stays_and_what_is_personal_goes() {
        let update = json!({
            "update_id": 7,
            "message": {
                "message_id": 5,
                "from": { "id": 4242, "is_bot": false, "first_name": "Ann", "language_code": "ru" },
                "chat": { "id": 4242, "type": "private", "title": "My type" },
                "text": "a secret 123456:AAF-token",
                "entities": [{ "type": "bold", "offset": 2, "length": 6 }, { "type": "My secret", "url": "https://x" }],
                "photo": [],
            },
        });
        assert_eq!(
            outline(&update),
            "message:\n  chat:\n    id: #\n    title: \"…\" 7\n    type: private\n  entities: ×2\n    -:\n      length: 6\n      \
             offset: 2\n      type: bold\n    -:\n      type: \"…\" 9\n      url: \"…\" 9\n  from:\n    first_name: \"…\" 3\n    id: #\n    \
             is_bot: false\n    language_code: ru\n  message_id: 5\n  photo: […] 0\n  text: \"…\" 25\nupdate_id: 7"
        );
    }

    #[test]
    fn hostile_shapes_stay_short_and_say_nothing() {
        let mut deep = json!("the secret");
        for _ in 0..100 {
            deep = json!({ "the secret, as a name": deep });
        }
        let wide: Vec<Value> = (0..10_000)
            .map(|n| json!({ "text": format!("the secret {n}") }))
            .collect();
        let many: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("f{n}"), json!("the secret"))).collect();
        for update in [
            deep,
            json!({ "wide": wide }),
            Value::Object(many),
            json!("the secret"),
            json!(["the secret"]),
        ] {
            let outline = outline(&update);
            assert!(!outline.contains("secret"), "{outline}");
            assert!(
                outline.lines().count() <= LINES + 1,
                "{} lines",
                outline.lines().count()
            );
        }
    }
}
