//! A model's Markdown as Telegram shows it: plain text with entities, in messages of at most 4096 UTF-16 code units.
//!
//! Entities rather than `parse_mode`: there is nothing to escape and nothing that fails to parse, so whatever a model
//! writes arrives. [`document`] reads the Markdown into one long text with marks, [`split`] cuts it into messages.
//!
//! The cuts depend only on what stands before them, so while an answer streams the earlier messages stay as they are.

mod document;
mod split;
mod table;
#[cfg(test)]
mod tests;

use domain::views::RichText;

/// The longest text of a Telegram message, in UTF-16 code units.
pub const LIMIT: usize = 4096;

/// An answer as the messages that carry it: at least one, none of them empty.
pub fn render(markdown: &str) -> Vec<RichText> {
    render_with_limit(markdown, LIMIT)
}

/// [`render`] with messages of at most `limit` UTF-16 code units (2 at least: one character may take two).
pub fn render_with_limit(markdown: &str, limit: usize) -> Vec<RichText> {
    split::split(document::read(markdown), limit.max(2))
}

/// [`render`] with a remark of ours as a paragraph of its own at the end, even where the Markdown breaks off within code.
/// The remark is plain text.
pub fn render_with_note(markdown: &str, note: &str) -> Vec<RichText> {
    split::split(document::read_with_note(markdown, note), LIMIT)
}

/// What an answer that is still being written looks like now: its last message, the one that grows.
pub fn preview(markdown: &str) -> RichText {
    render(markdown).pop().unwrap_or_else(split::nothing)
}

/// The messages from number `from` on (0 is the first), each with its number; empty when there are not so many yet.
///
/// For a caller that has message `from` open: the first one is its text now, any further ones are to be sent.
pub fn render_parts(markdown: &str, from: usize) -> Vec<(usize, RichText)> {
    render(markdown).into_iter().enumerate().skip(from).collect()
}
