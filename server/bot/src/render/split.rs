//! One long text with marks cut into messages.

use std::ops::Range;

use domain::views::{Entity, EntityKind, RichText};
use unicode_segmentation::GraphemeCursor;

use super::document::{Document, Span};

/// What stands for an answer in which there is nothing to see: Telegram takes no empty message.
pub(super) fn nothing() -> RichText {
    RichText {
        text: "…".to_owned(),
        entities: Vec::new(),
    }
}

pub(super) fn split(document: Document, limit: usize) -> Vec<RichText> {
    let text = document.text.trim_end();
    let mut parts = Vec::new();
    let starts_of_code: Vec<usize> = document
        .spans
        .iter()
        .filter(|span| span.kind == EntityKind::Pre)
        .map(|span| span.range.start)
        .collect();
    let mut starts_of_code = starts_of_code.into_iter().peekable();
    let mut gaps = document.gaps.into_iter().peekable();
    let mut spans = document.spans.into_iter().peekable();
    // The marks that reach into the next message.
    let mut open: Vec<Span> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let in_code = open
            .iter()
            .any(|span| span.kind == EntityKind::Pre && span.range.end > at);
        while starts_of_code.next_if(|code| *code < at).is_some() {}
        // Neither into the indentation of code that begins here.
        let next_code = starts_of_code.peek().copied().unwrap_or(usize::MAX);
        let start = skip_blank(text, at, in_code).min(next_code);
        if start >= text.len() {
            break;
        }
        while gaps.next_if(|gap| *gap <= start).is_some() {}
        let mut last_gap = None;
        let end = match overflow(text, start, limit) {
            None => text.len(),
            Some(window) => {
                while let Some(gap) = gaps.next_if(|gap| *gap <= window.end) {
                    last_gap = Some(gap);
                }
                window.cut(text, last_gap, limit)
            }
        };
        let range = start..start + text[start..end].trim_end().len();
        while let Some(span) = spans.next_if(|span| span.range.start < end) {
            open.push(span);
        }
        let visible = text[range.clone()].chars().any(is_visible);
        if visible {
            parts.push(part(text, range, &open));
        }
        open.retain(|span| span.range.end > end);
        at = end;
    }
    if parts.is_empty() {
        parts.push(nothing());
    }
    parts
}

/// Leaves out white space between messages, but not the indentation of code.
fn skip_blank(text: &str, at: usize, in_code: bool) -> usize {
    let rest = &text[at..];
    let blank = rest.len() - rest.trim_start().len();
    if !in_code {
        return at + blank;
    }
    at + rest[..blank].rfind('\n').map_or(0, |newline| newline + 1)
}

/// As much of the text as fits, with the places at which it could be cut.
struct Window {
    start: usize,
    end: usize,
    /// The end of the character that no longer fits.
    beyond: usize,
    /// The last line break, and how many code units stand before it.
    line: Option<(usize, usize)>,
    word: Option<usize>,
    first_visible: Option<usize>,
}

/// `None` when all the rest fits.
fn overflow(text: &str, start: usize, limit: usize) -> Option<Window> {
    let mut window = Window {
        start,
        end: start,
        beyond: start,
        line: None,
        word: None,
        first_visible: None,
    };
    let mut units = 0;
    let mut before = ' ';
    for (offset, c) in text[start..].char_indices() {
        let at = start + offset;
        if window.first_visible.is_some() {
            if c == '\n' {
                window.line = Some((at, units));
            } else if c.is_whitespace() && !before.is_whitespace() || ends_clause(before) && !ends_clause(c) {
                window.word = Some(at);
            }
        }
        if units + c.len_utf16() > limit {
            window.end = at;
            window.beyond = at + c.len_utf8();
            return Some(window);
        }
        units += c.len_utf16();
        if window.first_visible.is_none() && is_visible(c) {
            window.first_visible = Some(at);
        }
        before = c;
    }
    None
}

impl Window {
    /// Between paragraphs if there is such a place, else between lines (unless that leaves a message mostly empty), else between
    /// words, else between characters.
    fn cut(&self, text: &str, gap: Option<usize>, limit: usize) -> usize {
        let shown = |at: &usize| self.first_visible.is_some_and(|first| first < *at);
        let line = self
            .line
            .filter(|(_, units)| *units >= limit / 4 || self.word.is_none())
            .map(|(at, _)| at);
        gap.filter(shown)
            .or(line)
            .or(self.word)
            .unwrap_or_else(|| self.between_characters(text))
    }

    /// The last border of what a person sees as one character, such as a flag or a family of emoji.
    fn between_characters(&self, text: &str) -> usize {
        let Some(window) = text.get(self.start..self.beyond) else {
            return self.end;
        };
        let mut cursor = GraphemeCursor::new(self.end - self.start, window.len(), true);
        if let Ok(true) = cursor.is_boundary(window, 0) {
            return self.end;
        }
        match cursor.prev_boundary(window, 0) {
            Ok(Some(boundary)) if boundary > 0 => self.start + boundary,
            // One "character" that fills a whole message.
            _ => self.end,
        }
    }
}

fn part(text: &str, range: Range<usize>, spans: &[Span]) -> RichText {
    let text_of_part = &text[range.clone()];
    let units = utf16_offsets(text_of_part);
    let entities = spans
        .iter()
        .filter_map(|span| {
            let start = span.range.start.max(range.start);
            let end = span.range.end.min(range.end);
            let inner = text.get(start..end).unwrap_or_default();
            let end = start + inner.trim_end().len();
            let start = match span.kind {
                EntityKind::Pre | EntityKind::Blockquote => start,
                _ => start + (inner.len() - inner.trim_start().len()),
            };
            if start >= end {
                return None;
            }
            let offset = *units.get(start - range.start)?;
            let length = *units.get(end - range.start)? - offset;
            let (url, language) = match span.kind {
                EntityKind::TextLink => (span.detail.clone(), None),
                EntityKind::Pre => (None, span.detail.clone()),
                _ => (None, None),
            };
            Some(Entity {
                kind: span.kind,
                offset,
                length,
                url,
                language,
            })
        })
        .collect();
    RichText {
        text: text_of_part.to_owned(),
        entities: at_most(MOST_ENTITIES, entities),
    }
}

/// Telegram drops the entities of a message after the hundredth.
const MOST_ENTITIES: usize = 100;

/// Better without some bold words than without the links and the code.
fn at_most(most: usize, mut entities: Vec<Entity>) -> Vec<Entity> {
    if entities.len() > most {
        entities.sort_by_key(|entity| match entity.kind {
            EntityKind::TextLink | EntityKind::Pre => 0,
            EntityKind::Code | EntityKind::Blockquote => 1,
            _ => 2,
        });
        entities.truncate(most);
        entities.sort_by_key(|entity| (entity.offset, std::cmp::Reverse(entity.length)));
    }
    entities
}

/// The UTF-16 offset of each byte offset, the end included.
fn utf16_offsets(text: &str) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(text.len() + 1);
    let mut units = 0;
    for c in text.chars() {
        offsets.extend(std::iter::repeat_n(units, c.len_utf8()));
        units += c.len_utf16();
    }
    offsets.push(units);
    offsets
}

/// Scripts without spaces are cut after a sentence or a clause.
fn ends_clause(c: char) -> bool {
    matches!(c, '。' | '、' | '，' | '！' | '？' | '；' | '：')
}

/// Whether Telegram would see anything in a message of this character.
fn is_visible(c: char) -> bool {
    let invisible = matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}'
    );
    !(c.is_whitespace() || c.is_control() || invisible)
}
