//! Widgets that show one fact.

use leptos::prelude::*;

use super::{Glyph, Icon, Tone};
use crate::i18n::use_texts;

/// A state: icon, word and colour together, so that none of them has to be seen.
#[component]
pub fn Badge(tone: Tone, glyph: Glyph, #[prop(into)] text: String) -> impl IntoView {
    view! {
        <span class=format!("badge {}", tone.class())>
            <Icon glyph />
            <span>{text}</span>
        </span>
    }
}

/// How full a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarLevel {
    Fine,
    Near,
    Full,
}

impl BarLevel {
    pub const fn class(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Near => "near",
            Self::Full => "full",
        }
    }
}

/// Green under 75 %, amber under 100 %, red from there on.
pub const fn level(percent: i64) -> BarLevel {
    match percent {
        ..75 => BarLevel::Fine,
        75..100 => BarLevel::Near,
        100.. => BarLevel::Full,
    }
}

/// A bar of what is used and what is set aside, in percent of a limit; the words beside it say the same.
#[component]
pub fn Bar(
    used_percent: i64,
    #[prop(optional)] reserved_percent: i64,
    /// What the bar says, in words.
    #[prop(into)]
    text: String,
) -> impl IntoView {
    let used = used_percent.clamp(0, 100);
    let reserved = reserved_percent.clamp(0, 100 - used);
    let level = level(used_percent.saturating_add(reserved_percent));
    view! {
        <svg class=format!("bar {}", level.class()) viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label=text>
            <rect class="bar-track" x="0" y="0" width="100" height="6" />
            <rect class="bar-reserved" x=used.to_string() y="0" width=reserved.to_string() height="6" />
            <rect class="bar-used" x="0" y="0" width=used.to_string() height="6" />
        </svg>
    }
}

/// One figure with its name, and a second line where one helps.
#[component]
pub fn Stat(
    name: &'static str,
    #[prop(into)] value: String,
    #[prop(into, optional)] note: String,
    #[prop(optional)] alarm: bool,
) -> impl IntoView {
    view! {
        <div class="stat" class:alarm=alarm>
            <dt>{name}</dt>
            <dd class="stat-value">{value}</dd>
            {(!note.is_empty()).then(|| view! { <dd class="stat-note">{note}</dd> })}
        </div>
    }
}

/// Copies a text to the clipboard; without script the text can still be selected.
#[component]
pub fn Copy(#[prop(into)] text: String) -> impl IntoView {
    let t = use_texts();
    let done = RwSignal::new(false);
    let shown = text.clone();
    let copy = move |_| {
        copy_text(&text);
        done.set(true);
        set_timeout(move || done.set(false), std::time::Duration::from_secs(2));
    };
    view! {
        <span class="copy">
            <code>{shown}</code>
            <button type="button" class="button ghost small icon-only needs-script" on:click=copy aria-label=t.copy title=t.copy>
                {move || {
                    let glyph = if done.get() { Glyph::Check } else { Glyph::Copy };
                    view! { <Icon glyph /> }
                }}
            </button>
            <span class="visually-hidden" role="status">{move || if done.get() { t.copied } else { "" }}</span>
        </span>
    }
}

#[cfg(feature = "hydrate")]
fn copy_text(text: &str) {
    // A refused clipboard is nobody's fault; the text stays selectable.
    let _ = window().navigator().clipboard().write_text(text);
}

#[cfg(not(feature = "hydrate"))]
fn copy_text(_: &str) {}
