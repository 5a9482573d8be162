//! What the page says about itself: loading, empty, saved, failed.

use domain::{AppError, ErrorCode};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::use_location;

use super::{Glyph, Icon};
use crate::{Answer, i18n::use_texts, state::sign_in_and_back};

/// The colour of a message or a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Warn,
    Bad,
    Quiet,
    Accent,
}

impl Tone {
    pub const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
            Self::Accent => "accent",
        }
    }
}

/// A message that stays on the page.
#[component]
pub fn Notice(tone: Tone, glyph: Glyph, children: Children) -> impl IntoView {
    view! {
        <div class=format!("notice {}", tone.class())>
            <Icon glyph />
            <div>{children()}</div>
        </div>
    }
}

/// A failure in words, with the code to quote.
#[component]
pub fn ErrorBox(error: AppError) -> impl IntoView {
    let t = use_texts();
    let words = t.error(error.code);
    let detail = error.detail.and_then(|detail| t.detail(error.code, &detail));
    view! {
        <div class="notice bad" role="alert">
            <Icon glyph=Glyph::Warning />
            <div>
                <p>{words}</p>
                {detail.map(|detail| view! { <p>{detail}</p> })}
                <p class="muted">{t.error_code}" "<code>{error.code.as_str()}</code></p>
            </div>
        </div>
    }
}

/// Where a form shows that it failed. The place is always there, so that screen readers hear what appears in it.
#[component]
pub fn FormFailure(#[prop(into)] error: Signal<Option<AppError>>) -> impl IntoView {
    view! { <div class="form-failure">{move || error.get().map(|error| view! { <ErrorBox error /> })}</div> }
}

/// What a form says when it has saved.
#[component]
pub fn Saved(children: Children) -> impl IntoView {
    view! {
        <div class="notice good" role="status">
            <Icon glyph=Glyph::Check />
            <div>{children()}</div>
        </div>
    }
}

/// A list with nothing in it: says why, and what to do.
#[component]
pub fn Empty(glyph: Glyph, #[prop(into)] title: String, #[prop(into, optional)] hint: String) -> impl IntoView {
    view! {
        <div class="empty">
            <Icon glyph />
            <p class="empty-title">{title}</p>
            {(!hint.is_empty()).then(|| view! { <p class="muted">{hint}</p> })}
        </div>
    }
}

/// The shape of what is on its way.
#[component]
pub fn Skeleton(#[prop(default = 6)] rows: usize) -> impl IntoView {
    let t = use_texts();
    let rows = (0..rows)
        .map(|_| view! { <div class="skeleton-row"></div> })
        .collect_view();
    view! {
        <div class="skeleton" role="status" aria-label=t.loading>
            {rows}
        </div>
    }
}

/// A whole page that could not be shown: with the status of its failure, and for those who are signed out the way in.
#[component]
pub fn PageError(error: AppError) -> impl IntoView {
    // Who is signed out is redirected by the layout's guard; a status set here would undo that.
    #[cfg(feature = "ssr")]
    if error.code != ErrorCode::SignedOut {
        crate::ssr::set_status(error.code);
    }
    let t = use_texts();
    if error.code == ErrorCode::SignedOut {
        // In the browser: the session has ended while the page was open.
        // A new document, so that nothing of the old session stays in memory.
        let here = use_location();
        Effect::new(move |_| {
            let _ = window().location().assign(&sign_in_and_back(&here));
        });
    }
    let (glyph, title) = match error.code {
        ErrorCode::Forbidden => (Glyph::Lock, t.forbidden_title),
        ErrorCode::NotFound => (Glyph::Search, t.not_found_title),
        _ => (Glyph::Warning, t.failed_title),
    };
    let words = t.error(error.code);
    let detail = error
        .detail
        .filter(|_| error.code != ErrorCode::NotFound)
        .and_then(|detail| t.detail(error.code, &detail));
    view! {
        <Title text=title />
        <div class="page-error">
            <Icon glyph />
            <h1>{title}</h1>
            <p>{words}</p>
            {detail.map(|detail| view! { <p class="muted">{detail}</p> })}
            <p class="muted">{t.error_code}" "<code>{error.code.as_str()}</code></p>
            <p><a class="button" href="/">{t.to_overview}</a></p>
        </div>
    }
}

/// The page of a resource: its content, or its failure.
pub fn page<T>(answer: Answer<T>, show: impl FnOnce(T) -> AnyView) -> AnyView {
    match answer {
        Ok(data) => show(data),
        Err(failure) => view! { <PageError error=failure.0 /> }.into_any(),
    }
}

/// A dangerous button that first says what will happen; a native disclosure, so it asks without script too.
#[component]
pub fn Confirm(
    /// On the button that opens the question.
    #[prop(into)]
    open: String,
    glyph: Glyph,
    #[prop(optional)] danger: bool,
    children: Children,
) -> impl IntoView {
    view! {
        <details class="confirm">
            <summary class=if danger { "button danger" } else { "button" }>
                <Icon glyph />
                <span>{open}</span>
            </summary>
            <div class="confirm-body">{children()}</div>
        </details>
    }
}
