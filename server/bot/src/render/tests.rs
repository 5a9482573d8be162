//! Each construct once by example; what must hold for any input by random inputs.

use domain::views::{Entity, EntityKind, RichText};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser};

use super::{LIMIT, preview, render, render_parts, render_with_limit, render_with_note};

/// The text with its marks drawn in: `<bold>…</bold>`.
fn drawn(part: &RichText) -> String {
    let units: Vec<u16> = part.text.encode_utf16().collect();
    let mut text = String::new();
    for at in 0..=units.len() {
        let mut ends: Vec<&Entity> = part
            .entities
            .iter()
            .filter(|entity| entity.offset + entity.length == at)
            .collect();
        ends.reverse();
        for entity in ends {
            text.push_str(&format!("</{}>", name(entity.kind)));
        }
        for entity in part.entities.iter().filter(|entity| entity.offset == at) {
            let detail = entity.url.as_deref().or(entity.language.as_deref());
            let detail = detail.map(|detail| format!(" {detail}")).unwrap_or_default();
            text.push_str(&format!("<{}{detail}>", name(entity.kind)));
        }
        if let Some(unit) = units.get(at) {
            text.push(match char::decode_utf16([*unit]).next() {
                Some(Ok(c)) => c,
                _ => '\u{fffd}',
            });
        }
    }
    text
}

fn name(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Bold => "b",
        EntityKind::Italic => "i",
        EntityKind::Strikethrough => "s",
        EntityKind::Code => "code",
        EntityKind::Pre => "pre",
        EntityKind::TextLink => "a",
        EntityKind::Blockquote => "q",
    }
}

fn one(markdown: &str) -> String {
    let parts = render(markdown);
    assert_eq!(parts.len(), 1, "{parts:?}");
    drawn(&parts[0])
}

#[test]
fn marks_within_a_line() {
    assert_eq!(one("plain"), "plain");
    assert_eq!(
        one("**bold** and *it* and ~~gone~~"),
        "<b>bold</b> and <i>it</i> and <s>gone</s>"
    );
    assert_eq!(one("**bold *both***"), "<b>bold <i>both</i></b>");
    assert_eq!(one("a `b*c*` d"), "a <code>b*c*</code> d");
    assert_eq!(
        one("2 * 3 * 4 < 5 & 6 &amp; snake_case_name"),
        "2 * 3 * 4 < 5 & 6 & snake_case_name"
    );
    assert_eq!(one("a\nb  \nc"), "a\nb\nc");
}

#[test]
fn nothing_is_nested_in_code_nor_code_in_styles() {
    assert_eq!(one("**use `x` now**"), "<b>use</b> <code>x</code> <b>now</b>");
    assert_eq!(one("# The `x`"), "<b>The</b> <code>x</code>");
    assert_eq!(
        one("[`x` docs](https://a.example/x)"),
        "<a https://a.example/x>x docs</a>"
    );
    assert_eq!(one("# A **b** c"), "<b>A b c</b>");
}

#[test]
fn blocks_stand_apart() {
    assert_eq!(
        one("# Head\ntext\n\n\nmore\n\n---\nend"),
        "<b>Head</b>\n\ntext\n\nmore\n\n———\n\nend"
    );
    assert_eq!(one("> a\n> > b\n>\n> c\n\nd"), "<q>a\n\nb\n\nc</q>\n\nd");
    assert_eq!(one("> **a**"), "<q><b>a</b></q>");
    assert_eq!(
        one("<b>html</b> stays\n\n<div>\n  x\n</div>"),
        "<b>html</b> stays\n\n<div>\n  x\n</div>"
    );
}

#[test]
fn lists() {
    assert_eq!(
        one("- a\n- **b**\n  - c\n    1. d\n- e"),
        "• a\n• <b>b</b>\n  • c\n    1. d\n• e"
    );
    assert_eq!(one("text\n3. c\n\n4. d"), "text\n3. c\n\n4. d");
    assert_eq!(one("1. a\n\n   more\n\n2. b"), "1. a\n\n  more\n\n2. b");
    assert_eq!(one("- [x] done\n- [ ] open"), "☑ done\n☐ open");
    assert_eq!(
        one("1. Run:\n   ```sh\n   ls\n   ```\n   then\n2. b"),
        "1. Run:\n<pre sh>ls</pre>\n  then\n2. b"
    );
    assert_eq!(one("- a\n\ntext\n\n* b"), "• a\n\ntext\n\n• b");
}

#[test]
fn code_blocks() {
    assert_eq!(
        one("x\n```rust\nfn a() {\n    b\n}\n```\ny"),
        "x\n\n<pre rust>fn a() {\n    b\n}</pre>\n\ny"
    );
    assert_eq!(one("```\n\n  indented\n\n\n```"), "<pre>  indented</pre>");
    assert_eq!(one("```\n\n```"), "…");
    assert_eq!(one("```py title=\"a\"\n**no**"), "<pre py>**no**</pre>");
}

#[test]
fn links_lead_only_where_telegram_may_go() {
    assert_eq!(one("[a](https://a.example)"), "<a https://a.example>a</a>");
    assert_eq!(one("[a](tg://resolve?domain=b)"), "<a tg://resolve?domain=b>a</a>");
    assert_eq!(one("<me@a.example>"), "<a mailto:me@a.example>me@a.example</a>");
    assert_eq!(one("[a](javascript:alert(1)) [b](docs/x.md) [c](http://)"), "a b c");
    assert_eq!(
        one("![alt](https://a.example/i.png)"),
        "<a https://a.example/i.png>alt</a>"
    );
    assert_eq!(
        one("![](https://a.example/i.png)"),
        "<a https://a.example/i.png>https://a.example/i.png</a>"
    );
    assert_eq!(one("[**a**](https://a.example)"), "<a https://a.example><b>a</b></a>");
}

#[test]
fn a_list_of_sources_that_nothing_refers_to_is_shown() {
    assert_eq!(
        one("See [1].\n\n[1]: https://a.example\n[2]: https://b.example"),
        "See <a https://a.example>1</a>.\n\n[2]: https://b.example"
    );
}

#[test]
fn tables_are_aligned() {
    assert_eq!(
        one("| a | bb |\n|---|---:|\n| **long** | 1 |\n| 日本 | `22` |"),
        "<pre>a    | bb\n-----+---\nlong |  1\n日本 | 22</pre>"
    );
}

#[test]
fn offsets_are_utf16() {
    let parts = render("😀 **жир**");
    assert_eq!(parts[0].entities[0].offset, 3);
    assert_eq!(parts[0].entities[0].length, 3);
}

#[test]
fn an_answer_without_anything_to_see() {
    for markdown in ["", " \n\t ", "\u{200b}", "# ", "&nbsp;", "\u{0}"] {
        let parts = render(markdown);
        assert_eq!(parts.len(), 1);
        assert!(
            ["…", "\u{fffd}"].contains(&parts[0].text.as_str()),
            "{markdown:?}: {parts:?}"
        );
    }
}

#[test]
fn cuts_between_paragraphs_then_lines_then_words_then_characters() {
    let texts = |markdown: &str, limit| -> Vec<String> {
        render_with_limit(markdown, limit)
            .into_iter()
            .map(|part| part.text)
            .collect()
    };
    assert_eq!(
        texts("one two\n\nthree four\nfive", 18),
        ["one two", "three four\nfive"]
    );
    assert_eq!(texts("one two\nthree four five", 18), ["one two", "three four five"]);
    assert_eq!(texts("one two three", 8), ["one two", "three"]);
    assert_eq!(texts("abcdefghij", 4), ["abcd", "efgh", "ij"]);
    assert_eq!(texts("😀😀😀", 5), ["😀😀", "😀"]);
    assert_eq!(texts("a👨‍👩‍👧b", 8), ["a", "👨‍👩‍👧", "b"]);
    assert_eq!(texts("一二三。四五六七", 6), ["一二三。", "四五六七"]);
    // Exactly full, and a heading that goes along with its text.
    assert_eq!(texts("abcd\n\nefgh", 4), ["abcd", "efgh"]);
    assert_eq!(
        texts("aaaa\n\n# h\n\nbbbbbbbb bbbbbbbb", 16),
        ["aaaa", "h\n\nbbbbbbbb", "bbbbbbbb"]
    );
}

#[test]
fn a_cut_code_block_goes_on_as_code() {
    let parts = render_with_limit("```rust\nlet a = 1;\n    let b = 2;\n```\n**after it**", 16);
    let drawn: Vec<String> = parts.iter().map(drawn).collect();
    assert_eq!(
        drawn,
        [
            "<pre rust>let a = 1;</pre>",
            "<pre rust>    let b = 2;</pre>",
            "<b>after it</b>"
        ]
    );
    let parts = render_with_limit("a **b c d** e", 5);
    let drawn: Vec<String> = parts.iter().map(super::tests::drawn).collect();
    assert_eq!(drawn, ["a <b>b c</b>", "<b>d</b> e"]);
}

#[test]
fn exactly_4096_units_are_one_message() {
    let full = "😀".repeat(2048);
    assert_eq!(render(&full).len(), 1);
    let parts = render(&format!("{full}a"));
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1].text, "a");
}

#[test]
fn a_preview_is_the_message_that_grows() {
    assert_eq!(drawn(&preview("text\n```rust\nfn a(")), "text\n\n<pre rust>fn a(</pre>");
    let long = format!("{}\n\nlast", "word ".repeat(819));
    assert_eq!(preview(&long).text, "last");
    assert_eq!(render_parts(&long, 1), [(1, preview(&long))]);
    assert!(render_parts(&long, 2).is_empty());
}

#[test]
fn a_note_stands_below_whatever_is_unfinished() {
    let drawn = |markdown| drawn(&render_with_note(markdown, "Stopped *here*.\nBD-X")[0]);
    assert_eq!(drawn("a\n```sh\nls"), "a\n\n<pre sh>ls</pre>\n\nStopped *here*.\nBD-X");
    assert_eq!(drawn("- a **b"), "• a **b\n\nStopped *here*.\nBD-X");
    assert_eq!(drawn(""), "Stopped *here*.\nBD-X");
}

#[test]
fn earlier_messages_stay_while_the_last_one_grows() {
    let mut markdown = String::new();
    let mut before: Vec<RichText> = Vec::new();
    for n in 0..400 {
        markdown.push_str(&format!("Paragraph {n} **with** `code`.\n\n- item {n}\n\n"));
        let now = render_with_limit(&markdown, 500);
        if before.len() > 1 {
            assert_eq!(now[..before.len() - 1], before[..before.len() - 1]);
        }
        before = now;
    }
}

#[test]
fn a_megabyte_is_rendered_in_linear_time() {
    for markdown in [
        "word ",
        "**a** `b` ",
        "- a\n",
        "> ",
        "`",
        "[",
        "| a | b |\n|--|--|\n",
        "\u{301}",
        "*_",
    ] {
        let long = markdown.repeat(400_000 / markdown.len());
        let begin = std::time::Instant::now();
        render(&long);
        assert!(begin.elapsed().as_secs() < 20, "{markdown:?}: {:?}", begin.elapsed());
    }
}

/// What must hold for every answer.
fn check(markdown: &str, limit: usize) {
    let parts = render_with_limit(markdown, limit);
    assert!(!parts.is_empty());
    for part in &parts {
        let units: Vec<u16> = part.text.encode_utf16().collect();
        assert!((1..=limit).contains(&units.len()), "{} units", units.len());
        assert_eq!(part.text.trim_end(), part.text, "trailing white space");
        assert!(!part.text.trim().is_empty(), "empty");
        let in_code = part
            .entities
            .first()
            .is_some_and(|e| e.kind == EntityKind::Pre && e.offset == 0)
            || part
                .entities
                .get(1)
                .is_some_and(|e| e.kind == EntityKind::Pre && e.offset == 0);
        assert!(
            in_code || part.text.trim_start() == part.text,
            "leading white space: {:?}",
            part.text
        );
        let halves = |at: usize| units.get(at).is_some_and(|unit| (0xDC00..0xE000).contains(unit));
        let mut open: Vec<&Entity> = Vec::new();
        let mut last = (0, usize::MAX);
        for entity in &part.entities {
            let (start, end) = (entity.offset, entity.offset + entity.length);
            assert!(entity.length > 0 && end <= units.len());
            assert!(!halves(start) && !halves(end), "a surrogate pair is cut");
            assert!(
                (start, usize::MAX - entity.length) >= (last.0, usize::MAX - last.1),
                "not sorted"
            );
            last = (start, entity.length);
            open.retain(|outer| outer.offset + outer.length > start);
            for outer in &open {
                assert!(end <= outer.offset + outer.length, "overlap: {:?} {entity:?}", outer);
                assert!(!matches!(outer.kind, EntityKind::Pre | EntityKind::Code), "within code");
                assert_ne!(outer.kind, entity.kind, "within its own kind");
                if matches!(entity.kind, EntityKind::Pre | EntityKind::Code) {
                    assert_eq!(outer.kind, EntityKind::Blockquote, "code within {:?}", outer.kind);
                }
            }
            open.push(entity);
        }
    }
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<Vec<char>>();
    let shown = letters(&parts.iter().map(|part| part.text.as_str()).collect::<String>());
    let options = Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    let mut expected = shown.iter();
    for event in Parser::new_ext(markdown, options) {
        if let Event::Text(text) | Event::Code(text) | Event::Html(text) | Event::InlineHtml(text) = event {
            for letter in letters(&text) {
                assert!(
                    expected.any(|c| *c == letter),
                    "{letter:?} of {text:?} is lost: {parts:?}"
                );
            }
        }
    }
}

fn markdownish() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("**"),
        Just("*"),
        Just("_"),
        Just("~~"),
        Just("`"),
        Just("```"),
        Just("```rust\n"),
        Just("\n"),
        Just("\n\n"),
        Just("\n```\n"),
        Just("# "),
        Just("- "),
        Just("1. "),
        Just("> "),
        Just("    "),
        Just("  "),
        Just(" "),
        Just("[x]("),
        Just("https://a.example"),
        Just(")"),
        Just("]"),
        Just("!["),
        Just("| a | b |\n|---|:-:|\n| c | d |\n"),
        Just("<b>"),
        Just("<div>\n"),
        Just("</b>"),
        Just("- [x] "),
        Just("\n---\n"),
        Just("[n]: https://b.example\n"),
        Just("[n]"),
        Just("word"),
        Just("слово "),
        Just("😀"),
        Just("👨‍👩‍👧"),
        Just("🇺🇦"),
        Just("e\u{301}"),
        Just("日本語"),
        Just("\t"),
        Just("\\"),
        Just("&amp;"),
        Just("\u{200b}"),
        Just("\r\n"),
        Just("\u{202e}"),
        Just("a1b2c3d4e5f6g7h8"),
    ];
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_text_makes_sound_messages(markdown in any::<String>(), limit in 2_usize..40) {
        check(&markdown, limit);
        check(&markdown, LIMIT);
    }

    #[test]
    fn anything_like_markdown_makes_sound_messages(markdown in markdownish(), limit in 2_usize..60) {
        check(&markdown, limit);
        check(&markdown, LIMIT);
    }

    #[test]
    fn code_is_kept_line_by_line(lines in prop::collection::vec("[a-z{}();*_ ]{0,30}", 1..30), limit in 40_usize..80) {
        let parts = render_with_limit(&format!("```rust\n{}\n```", lines.join("\n")), limit);
        let kept: Vec<String> = parts.iter().flat_map(|part| part.text.lines().map(|line| line.trim_end().to_owned())).collect();
        let kept: Vec<&String> = kept.iter().filter(|line| !line.is_empty()).collect();
        let written: Vec<&str> = lines.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty()).collect();
        if written.is_empty() {
            prop_assert_eq!(kept, ["…"]);
        } else {
            prop_assert_eq!(kept, written);
            prop_assert!(parts.iter().all(|part| part.entities.len() == 1 && part.entities[0].language.as_deref() == Some("rust")));
        }
    }
}

#[test]
fn of_too_many_entities_the_links_stay() {
    let bold = "**a** ".repeat(300);
    let parts = render(&format!("{bold}[here](https://example.org)"));
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].entities.len(), 100);
    assert!(
        parts[0]
            .entities
            .iter()
            .any(|entity| entity.kind == EntityKind::TextLink)
    );
    assert!(parts[0].entities.is_sorted_by_key(|entity| entity.offset));
}
