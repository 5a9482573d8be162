//! Markdown read into one text with marks on it. Offsets are bytes here; [`super::split`] turns them into UTF-16.

use std::{cmp::Reverse, collections::HashSet, iter::Peekable, ops::Range, vec};

use domain::views::EntityKind;
use pulldown_cmark::{CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};
use url::Url;

use super::table::Table;

/// Longer addresses are refused by Telegram, for the whole message.
const LONGEST_URL: usize = 2048;

const BULLET: &str = "• ";

#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) kind: EntityKind,
    pub(super) range: Range<usize>,
    /// The address of a link, the language of a code block.
    pub(super) detail: Option<String>,
}

/// Spans nest properly: of two that overlap one contains the other, and nothing lies within code.
#[derive(Default)]
pub(super) struct Document {
    pub(super) text: String,
    /// By start.
    pub(super) spans: Vec<Span>,
    /// Where a gap between two paragraphs begins at which a message may end, in order.
    pub(super) gaps: Vec<usize>,
}

pub(super) fn read(markdown: &str) -> Document {
    write(markdown).finish()
}

pub(super) fn read_with_note(markdown: &str, note: &str) -> Document {
    let mut writer = write(markdown);
    writer.paragraph(note);
    writer.finish()
}

fn write(markdown: &str) -> Writer {
    let options = Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    let parser = Parser::new_ext(markdown, options);
    let mut definitions: Vec<(String, Range<usize>)> = parser
        .reference_definitions()
        .iter()
        .map(|(name, definition)| (name.to_lowercase(), definition.span.clone()))
        .collect();
    let events: Vec<(Event, Range<usize>)> = parser.into_offset_iter().collect();
    if !definitions.is_empty() {
        let used: HashSet<String> = events.iter().filter_map(|(event, _)| reference(event)).collect();
        definitions.retain(|(name, _)| !used.contains(name));
        definitions.sort_by_key(|(_, span)| span.start);
    }
    let mut unused = definitions.into_iter().map(|(_, span)| span).peekable();

    let mut writer = Writer::default();
    let mut depth = 0_usize;
    let mut events = events.into_iter().peekable();
    while let Some((event, range)) = events.next() {
        if depth == 0 {
            // A list of sources that nothing refers to is no Markdown to a reader, but text.
            while let Some(span) = unused.next_if(|span| span.start < range.start) {
                writer.paragraph(markdown.get(span).unwrap_or_default());
            }
        }
        match &event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        writer.event(event, &mut events);
    }
    for span in unused {
        writer.paragraph(markdown.get(span).unwrap_or_default());
    }
    writer
}

/// The name of the definition that a link or image refers to.
fn reference(event: &Event) -> Option<String> {
    let Event::Start(Tag::Link { link_type, id, .. } | Tag::Image { link_type, id, .. }) = event else {
        return None;
    };
    let by_name = matches!(
        link_type,
        LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut
    );
    by_name.then(|| id.to_lowercase())
}

/// How far a block stands from the one before it.
#[derive(Clone, Copy, PartialEq)]
enum Gap {
    Line,
    Blank,
}

/// An inline mark that has begun; `start` is `None` when it adds nothing (bold within bold, a link that leads nowhere).
struct Open {
    kind: EntityKind,
    start: Option<usize>,
    detail: Option<String>,
}

struct List {
    /// The number of the next item; `None` for bullets.
    number: Option<u64>,
    begun: bool,
}

/// What the text goes to.
#[derive(Default)]
enum Target {
    #[default]
    Message,
    Code(String, Option<String>),
    Table(Table),
}

#[derive(Default)]
struct Writer {
    document: Document,
    target: Target,
    open: Vec<Open>,
    quotes: usize,
    quote_start: Option<usize>,
    lists: Vec<List>,
    /// The mark of a list item has been written and nothing after it.
    at_marker: bool,
    /// Text that comes without a block of its own (in a tight list) begins a new line.
    block_ended: bool,
    after_heading: bool,
    /// Of the links and images around: where their text begins, and what to show if it is empty.
    link_starts: Vec<(usize, String)>,
}

type Events<'a> = Peekable<vec::IntoIter<(Event<'a>, Range<usize>)>>;

impl Writer {
    fn event(&mut self, event: Event, rest: &mut Events) {
        match event {
            Event::Start(tag) => self.start(tag, rest),
            Event::End(tag) => self.end(tag),
            Event::Code(code) => self.code(&code),
            Event::SoftBreak | Event::HardBreak => self.text("\n"),
            Event::Rule => {
                self.gap(Gap::Blank);
                self.document.text.push_str("———");
                self.block_ended = true;
            }
            Event::TaskListMarker(done) => {
                if self.at_marker && self.document.text.ends_with(BULLET) {
                    let bullet = self.document.text.len() - BULLET.len();
                    self.document.text.truncate(bullet);
                }
                self.text(if done { "☑ " } else { "☐ " });
            }
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            // Not enabled; shown as they are written should that ever change.
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag, rest: &mut Events) {
        match tag {
            Tag::Paragraph => self.gap(Gap::Blank),
            Tag::Heading { .. } => {
                self.gap(Gap::Blank);
                self.open(EntityKind::Bold, None);
            }
            Tag::BlockQuote(_) => self.quotes += 1,
            Tag::CodeBlock(kind) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => language(&info),
                    CodeBlockKind::Indented => None,
                };
                self.target = Target::Code(String::new(), language);
            }
            Tag::HtmlBlock => self.gap(self.block_gap()),
            Tag::List(number) => self.lists.push(List { number, begun: false }),
            Tag::Item => self.item(matches!(rest.peek(), Some((Event::Start(Tag::Paragraph), _)))),
            Tag::Table(alignments) => self.target = Target::Table(Table::new(alignments)),
            Tag::TableHead | Tag::TableRow => {
                if let Target::Table(table) = &mut self.target {
                    table.start_row();
                }
            }
            Tag::TableCell => {
                if let Target::Table(table) = &mut self.target {
                    table.start_cell();
                }
            }
            Tag::Emphasis => self.open(EntityKind::Italic, None),
            Tag::Strong => self.open(EntityKind::Bold, None),
            Tag::Strikethrough => self.open(EntityKind::Strikethrough, None),
            Tag::Link {
                link_type, dest_url, ..
            }
            | Tag::Image {
                link_type, dest_url, ..
            } => {
                let address = address(link_type, &dest_url);
                self.open(EntityKind::TextLink, address.clone());
                self.link_starts
                    .push((self.document.text.len(), address.unwrap_or_default()));
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.block_ended = true,
            TagEnd::Heading(_) => {
                self.close();
                self.block_ended = true;
                self.after_heading = true;
            }
            TagEnd::BlockQuote(_) => {
                self.quotes = self.quotes.saturating_sub(1);
                if self.quotes == 0
                    && let Some(start) = self.quote_start.take()
                {
                    self.mark(EntityKind::Blockquote, start, None);
                }
                self.block_ended = true;
            }
            TagEnd::CodeBlock => {
                if let Target::Code(code, language) = std::mem::take(&mut self.target) {
                    self.block_of_code(&code, language);
                }
            }
            TagEnd::Table => {
                if let Target::Table(table) = std::mem::take(&mut self.target) {
                    self.block_of_code(&table.into_text(), None);
                }
            }
            TagEnd::HtmlBlock => {
                let text = &mut self.document.text;
                text.truncate(text.trim_end().len());
                self.block_ended = true;
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.block_ended = true;
            }
            TagEnd::Item => {
                self.at_marker = false;
                self.block_ended = false;
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => self.close(),
            TagEnd::Link | TagEnd::Image => {
                if let Some((start, address)) = self.link_starts.pop()
                    && self.document.text.len() == start
                    && matches!(self.target, Target::Message)
                {
                    self.text(&address);
                }
                self.close();
            }
            _ => {}
        }
    }

    /// A paragraph that is no Markdown.
    fn paragraph(&mut self, text: &str) {
        self.gap(Gap::Blank);
        self.text(text.trim());
        self.block_ended = true;
    }

    /// The gap before a block that looks alike in lists with and without blank lines.
    fn block_gap(&self) -> Gap {
        if self.lists.is_empty() { Gap::Blank } else { Gap::Line }
    }

    /// Starts a new block, which stands on lines of its own unless it is the first of a list item.
    fn gap(&mut self, gap: Gap) {
        if !self.at_marker {
            self.separate(gap);
            self.document.text.push_str(&"  ".repeat(self.lists.len()));
        }
        self.begin();
    }

    fn separate(&mut self, gap: Gap) {
        if self.document.text.is_empty() {
            return;
        }
        match gap {
            Gap::Line => self.document.text.push('\n'),
            Gap::Blank => {
                // A heading is not left behind at the end of a message.
                if !self.after_heading {
                    self.document.gaps.push(self.document.text.len());
                }
                self.document.text.push_str("\n\n");
            }
        }
    }

    fn begin(&mut self) {
        self.at_marker = false;
        self.block_ended = false;
        self.after_heading = false;
        if self.quotes > 0 && self.quote_start.is_none() {
            self.quote_start = Some(self.document.text.len());
        }
    }

    fn item(&mut self, loose: bool) {
        let depth = self.lists.len();
        let Some(list) = self.lists.last_mut() else { return };
        let first = !std::mem::replace(&mut list.begun, true);
        let mark = match &mut list.number {
            Some(number) => {
                let mark = format!("{number}. ");
                *number = number.saturating_add(1);
                mark
            }
            None => BULLET.to_owned(),
        };
        if !(first && self.at_marker) {
            let blank = if first { depth == 1 } else { loose };
            self.separate(if blank { Gap::Blank } else { Gap::Line });
            self.document.text.push_str(&"  ".repeat(depth.saturating_sub(1)));
        }
        self.begin();
        self.document.text.push_str(&mark);
        self.at_marker = true;
    }

    /// Code or a table: monospaced lines that start at the left edge, wherever the block stands.
    fn block_of_code(&mut self, code: &str, language: Option<String>) {
        let code = code.trim_end();
        let blank = code.len() - code.trim_start().len();
        let first_line = code[..blank].rfind('\n').map_or(0, |at| at + 1);
        let code = &code[first_line..];
        if code.is_empty() {
            return;
        }
        self.separate(self.block_gap());
        self.begin();
        let start = self.document.text.len();
        self.document.text.push_str(code);
        self.mark(EntityKind::Pre, start, language);
        self.block_ended = true;
    }

    fn text(&mut self, text: &str) {
        match &mut self.target {
            Target::Code(code, _) => code.extend(clean(text)),
            Target::Table(table) => table.push(&clean(text).collect::<String>()),
            Target::Message => {
                self.continue_block();
                self.document.text.extend(clean(text));
            }
        }
    }

    fn continue_block(&mut self) {
        if self.block_ended {
            self.gap(Gap::Line);
        }
        self.at_marker = false;
    }

    /// Nothing contains code but a quotation, so what is open ends before it and begins again after it; a link goes on.
    fn code(&mut self, code: &str) {
        let linked = self
            .open
            .iter()
            .any(|open| open.kind == EntityKind::TextLink && open.start.is_some());
        if linked || !matches!(self.target, Target::Message) || code.trim().is_empty() {
            return self.text(code);
        }
        self.continue_block();
        let mut open = std::mem::take(&mut self.open);
        for mark in &open {
            self.mark_open(mark);
        }
        let start = self.document.text.len();
        self.document.text.extend(clean(code));
        self.mark(EntityKind::Code, start, None);
        for mark in &mut open {
            mark.start = mark.start.map(|_| self.document.text.len());
        }
        self.open = open;
    }

    fn open(&mut self, kind: EntityKind, detail: Option<String>) {
        if matches!(self.target, Target::Message) {
            self.continue_block();
        }
        let useless = self.open.iter().any(|open| open.kind == kind && open.start.is_some())
            || kind == EntityKind::TextLink && detail.is_none();
        let start = (!useless).then_some(self.document.text.len());
        self.open.push(Open { kind, start, detail });
    }

    fn close(&mut self) {
        if let Some(mark) = self.open.pop() {
            self.mark_open(&mark);
        }
    }

    fn mark_open(&mut self, mark: &Open) {
        if let Some(start) = mark.start {
            self.mark(mark.kind, start, mark.detail.clone());
        }
    }

    /// Marks the text from `start` on, without the white space around it.
    fn mark(&mut self, kind: EntityKind, start: usize, detail: Option<String>) {
        let text = self.document.text.get(start..).unwrap_or_default();
        let end = start + text.trim_end().len();
        let start = match kind {
            // The indentation of code is part of it, and a quotation may begin with code.
            EntityKind::Pre | EntityKind::Blockquote => start,
            _ => start + (text.len() - text.trim_start().len()),
        };
        if start < end {
            self.document.spans.push(Span {
                kind,
                range: start..end,
                detail,
            });
        }
    }

    fn finish(mut self) -> Document {
        // A quotation comes before what fills it from end to end.
        let rank = |kind| match kind {
            EntityKind::Blockquote => 0,
            EntityKind::TextLink => 1,
            _ => 2,
        };
        self.document
            .spans
            .sort_by_key(|span| (span.range.start, Reverse(span.range.end), rank(span.kind)));
        self.document
    }
}

/// The characters that Telegram keeps; the others (control characters, marks that turn the direction of what follows)
/// would only shift what comes after them.
fn clean(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter_map(|c| match c {
        '\n' | '\t' => Some(c),
        '\u{2028}' | '\u{2029}' => Some('\n'),
        '\u{202a}'..='\u{202e}' => None,
        c if c.is_control() => None,
        c => Some(c),
    })
}

/// The language of a code block, if it looks like one.
fn language(info: &str) -> Option<String> {
    let word = info.split([' ', '\t', ',', '{']).next().unwrap_or_default();
    let looks_like_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '#' | '.' | '_');
    ((1..=32).contains(&word.len()) && word.chars().all(looks_like_one)).then(|| word.to_owned())
}

/// Where a link may lead from Telegram.
fn address(link_type: LinkType, address: &str) -> Option<String> {
    let address = match link_type {
        LinkType::Email if !address.starts_with("mailto:") => format!("mailto:{address}"),
        _ => address.trim().to_owned(),
    };
    let url = Url::parse(&address).ok().filter(|_| address.len() <= LONGEST_URL)?;
    let leads = match url.scheme() {
        "http" | "https" | "tg" => url.has_host(),
        "mailto" => !url.path().is_empty(),
        _ => false,
    };
    (leads && !address.contains(|c: char| c.is_control() || c.is_whitespace())).then_some(address)
}
