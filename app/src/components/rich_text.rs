//! Text with Telegram's marks, shown as Telegram would.

use domain::views::{Entity, EntityKind, RichText};
use leptos::prelude::*;

/// A part of a text: plain, or marked and holding parts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Marked(EntityKind, Option<String>, Vec<Part>),
}

/// Renders a text with its marks. Goes into a block element: quotes and code blocks may not stand inside a paragraph.
#[component]
pub fn Rich(text: RichText) -> impl IntoView {
    show(parts(&text))
}

fn show(parts: Vec<Part>) -> Vec<AnyView> {
    parts
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => text.into_any(),
            Part::Marked(kind, url, inner) => {
                let inner = show(inner);
                match kind {
                    EntityKind::Bold => view! { <b>{inner}</b> }.into_any(),
                    EntityKind::Italic => view! { <i>{inner}</i> }.into_any(),
                    EntityKind::Strikethrough => view! { <s>{inner}</s> }.into_any(),
                    EntityKind::Code => view! { <code>{inner}</code> }.into_any(),
                    EntityKind::Pre => view! { <pre tabindex="0"><code>{inner}</code></pre> }.into_any(),
                    EntityKind::Blockquote => view! { <blockquote>{inner}</blockquote> }.into_any(),
                    EntityKind::TextLink => match url {
                        Some(url) => {
                            view! { <a href=url target="_blank" rel="noopener noreferrer nofollow">{inner}</a> }
                                .into_any()
                        }
                        None => inner.into_any(),
                    },
                }
            }
        })
        .collect()
}

/// Cuts the text along its marks. Marks may nest; one that crosses another ends where the outer one does.
fn parts(text: &RichText) -> Vec<Part> {
    let units: Vec<u16> = text.text.encode_utf16().collect();
    let mut entities: Vec<&Entity> = text.entities.iter().filter(|entity| entity.length > 0).collect();
    entities.sort_by(|a, b| a.offset.cmp(&b.offset).then(b.length.cmp(&a.length)));
    cut(&units, 0, units.len(), &entities, false)
}

fn cut(units: &[u16], start: usize, end: usize, entities: &[&Entity], in_link: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = start;
    let mut rest = entities;
    while let Some((entity, others)) = rest.split_first() {
        let from = entity.offset.max(at).min(end);
        let to = entity.offset.saturating_add(entity.length).min(end);
        let inside = others.iter().take_while(|other| other.offset < to).count();
        if to <= from {
            rest = others;
            continue;
        }
        push_text(&mut parts, units.get(at..from));
        // A link inside a link is no HTML: the inner one becomes plain.
        let url = entity.url.clone().filter(|url| !in_link && is_safe(url));
        let is_link = entity.kind == EntityKind::TextLink;
        let inner = cut(
            units,
            from,
            to,
            others.get(..inside).unwrap_or_default(),
            in_link || is_link,
        );
        if is_block(entity.kind) {
            trim_line_end(&mut parts);
        }
        parts.push(Part::Marked(entity.kind, if is_link { url } else { None }, inner));
        at = to;
        rest = others.get(inside..).unwrap_or_default();
    }
    push_text(&mut parts, units.get(at..end));
    parts
}

fn push_text(parts: &mut Vec<Part>, units: Option<&[u16]>) {
    let after_block = matches!(parts.last(), Some(Part::Marked(kind, ..)) if is_block(*kind));
    let units = units.map(|units| match units {
        [first, rest @ ..] if after_block && *first == u16::from(b'\n') => rest,
        _ => units,
    });
    if let Some(units) = units.filter(|units| !units.is_empty()) {
        parts.push(Part::Text(String::from_utf16_lossy(units)));
    }
}

/// These begin and end a line by themselves, so the line break beside them would be one too many.
const fn is_block(kind: EntityKind) -> bool {
    matches!(kind, EntityKind::Pre | EntityKind::Blockquote)
}

fn trim_line_end(parts: &mut Vec<Part>) {
    if let Some(Part::Text(text)) = parts.last_mut() {
        if text.ends_with('\n') {
            text.pop();
        }
        if text.is_empty() {
            parts.pop();
        }
    }
}

/// Only addresses that cannot run anything in our page.
fn is_safe(url: &str) -> bool {
    let lower = url.trim().to_ascii_lowercase();
    ["https://", "http://", "tg://", "mailto:"]
        .iter()
        .any(|scheme| lower.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(kind: EntityKind, offset: usize, length: usize, url: Option<&str>) -> Entity {
        Entity {
            kind,
            offset,
            length,
            url: url.map(str::to_owned),
            language: None,
        }
    }

    fn text(parts: &[Part]) -> String {
        parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Marked(_, _, inner) => text(inner),
            })
            .collect()
    }

    #[test]
    fn offsets_count_utf16_units_and_marks_nest() {
        let rich = RichText {
            text: "👍 bold it".to_owned(),
            entities: vec![
                entity(EntityKind::Italic, 8, 2, None),
                entity(EntityKind::Bold, 3, 7, None),
            ],
        };
        assert_eq!(
            parts(&rich),
            vec![
                Part::Text("👍 ".into()),
                Part::Marked(
                    EntityKind::Bold,
                    None,
                    vec![
                        Part::Text("bold ".into()),
                        Part::Marked(EntityKind::Italic, None, vec![Part::Text("it".into())])
                    ]
                ),
            ]
        );
    }

    #[test]
    fn a_block_needs_no_line_breaks_beside_it() {
        let rich = RichText {
            text: "a\ncode\n\nb".to_owned(),
            entities: vec![entity(EntityKind::Pre, 2, 4, None)],
        };
        assert_eq!(
            parts(&rich),
            vec![
                Part::Text("a".into()),
                Part::Marked(EntityKind::Pre, None, vec![Part::Text("code".into())]),
                Part::Text("\nb".into()),
            ]
        );
    }

    #[test]
    fn a_link_that_could_run_something_is_only_text() {
        for url in ["javascript:alert(1)", " JavaScript:x", "data:text/html,x", "/relative"] {
            let rich = RichText {
                text: "click".to_owned(),
                entities: vec![entity(EntityKind::TextLink, 0, 5, Some(url))],
            };
            assert_eq!(
                parts(&rich),
                vec![Part::Marked(
                    EntityKind::TextLink,
                    None,
                    vec![Part::Text("click".into())]
                )]
            );
        }
    }

    #[test]
    fn no_mark_loses_or_doubles_text() {
        let whole = "abc👍def";
        for a in 0..10 {
            for b in 0..10 {
                for (la, lb) in [(0, 3), (3, 3), (2, 99), (99, 1)] {
                    let rich = RichText {
                        text: whole.to_owned(),
                        entities: vec![
                            entity(EntityKind::Bold, a, la, None),
                            entity(EntityKind::Code, b, lb, None),
                        ],
                    };
                    let shown = text(&parts(&rich));
                    // A mark through the middle of a surrogate pair turns it into replacement signs, but moves nothing else.
                    assert_eq!(shown.replace(['\u{fffd}', '👍'], ""), "abcdef", "{rich:?}");
                }
            }
        }
    }
}
