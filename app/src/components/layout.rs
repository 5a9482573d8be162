//! The parts a page is put together from.

use leptos::prelude::*;
use leptos_meta::Title;

use super::{Glyph, Icon};
use crate::i18n::use_texts;

/// Title of the page, the way back, and what can be done here.
#[component]
pub fn PageHead(
    #[prop(into)] title: String,
    /// Where this page hangs: words and address, outermost first.
    #[prop(optional)]
    trail: Vec<(&'static str, &'static str)>,
    #[prop(into, optional)] lead: String,
    #[prop(optional)] children: Option<Children>,
) -> impl IntoView {
    let t = use_texts();
    let crumbs = (!trail.is_empty()).then(|| {
        let links = trail
            .into_iter()
            .map(|(words, href)| view! { <li><a href=href>{words}</a></li> })
            .collect_view();
        view! {
            <nav class="crumbs" aria-label=t.breadcrumbs>
                <ol>{links}</ol>
            </nav>
        }
    });
    view! {
        <Title text=title.clone() />
        <header class="page-head">
            <div>
                {crumbs}
                <h1>{title}</h1>
                {(!lead.is_empty()).then(|| view! { <p class="lead">{lead}</p> })}
            </div>
            {children.map(|children| view! { <div class="page-actions">{children()}</div> })}
        </header>
    }
}

/// A titled part of a page.
#[component]
pub fn Card(
    #[prop(into)] title: String,
    /// Unique on the page: the part is named by its heading.
    id: &'static str,
    #[prop(into, optional)] note: String,
    #[prop(optional)] flush: bool,
    children: Children,
) -> impl IntoView {
    view! {
        <section class="card" class:flush=flush aria-labelledby=id>
            <header class="card-head">
                <div class="card-title">
                    <h2 id=id>{title}</h2>
                    {(!note.is_empty()).then(|| view! { <p class="muted">{note}</p> })}
                </div>
            </header>
            {children()}
        </section>
    }
}

/// Ways through a long list: by key, so the hundredth page costs what the first does.
#[component]
pub fn Pager(
    /// Address of the first page, when this is another one.
    first: Option<String>,
    next: Option<String>,
    #[prop(optional)] next_words: Option<&'static str>,
) -> impl IntoView {
    let t = use_texts();
    let words = next_words.unwrap_or(t.pager_next);
    (first.is_some() || next.is_some()).then(|| {
        view! {
            <nav class="pager" aria-label=t.pager>
                {first
                    .map(|href| {
                        view! {
                            <a class="button" href=href>
                                <Icon glyph=Glyph::First />
                                <span>{t.pager_first}</span>
                            </a>
                        }
                    })}
                {next
                    .map(|href| {
                        view! {
                            <a class="button" href=href rel="next">
                                <span>{words}</span>
                                <Icon glyph=Glyph::Next />
                            </a>
                        }
                    })}
            </nav>
        }
    })
}
