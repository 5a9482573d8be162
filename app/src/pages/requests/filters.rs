//! Which calls are shown.

use domain::{
    Past,
    views::requests::{Outcome, RequestQuery},
};
use leptos::prelude::*;

use super::address::{PAGE, Shown};
use crate::{
    components::{Button, Choice, Field, Glyph, MomentField, QueryForm},
    i18n::use_texts,
};

/// How far back, each a link.
#[component]
pub(super) fn Range(shown: Shown) -> impl IntoView {
    let t = use_texts();
    let links = Past::ALL
        .map(|past| {
            let other = shown.narrowed(RequestQuery {
                past,
                from: None,
                to: None,
                ..shown.query.clone()
            });
            let current = (shown.past() == Some(past)).then_some("true");
            view! {
                <li>
                    <a href=other.address(None, None) aria-current=current>
                        {t.past(past)}
                    </a>
                </li>
            }
        })
        .collect_view();
    view! {
        <nav class="tabs ranges" aria-label=t.request_range>
            <ul>{links}</ul>
        </nav>
    }
}

#[component]
pub(super) fn Filters(shown: Shown, bots: Vec<(String, String)>) -> impl IntoView {
    let t = use_texts();
    let query = shown.query.clone();
    let without = |query: RequestQuery| shown.narrowed(query).address(None, None);
    let all = shown.narrowed(RequestQuery::default());
    let reset = (shown.narrowed(query.clone()) != all).then(|| {
        view! { <a class="button ghost" href=all.address(None, None)>{t.filter_reset}</a> }
    });
    let outcomes = Outcome::ALL
        .iter()
        .map(|outcome| (outcome.name().to_owned(), t.outcome(*outcome).to_owned()))
        .collect();
    let mut options = vec![(String::new(), t.request_any.to_owned())];
    options.extend(bots);
    let bot = query.bot.map(|id| id.to_string()).unwrap_or_default();
    // What is narrowed by a link from elsewhere: shown, kept by the form, and taken away by a link.
    let only = [
        (
            "user",
            t.request_only_user,
            query.user.map(|id| id.to_string()),
            RequestQuery {
                user: None,
                ..query.clone()
            },
        ),
        (
            "key",
            t.request_only_key,
            query.key.map(|id| id.to_string()),
            RequestQuery {
                key: None,
                ..query.clone()
            },
        ),
        (
            "conversation",
            t.request_only_conversation,
            query.conversation.map(|id| id.to_string()),
            RequestQuery {
                conversation: None,
                ..query.clone()
            },
        ),
    ]
    .into_iter()
    .filter_map(|(name, words, value, rest)| {
        let value = value?;
        Some(view! {
            <input type="hidden" name=name value=value />
            <a class="button small" href=without(rest) title=t.request_without>
                <span>{words}</span>
                <span aria-hidden="true">"×"</span>
                <span class="visually-hidden">{t.request_without}</span>
            </a>
        })
    })
    .collect_view();
    let past = shown.past().filter(|past| *past != Past::All);
    let past = past.map(|past| view! { <input type="hidden" name="past" value=past.name() /> });
    let columns = shown.columns.address();
    let columns = (!columns.is_empty()).then(|| view! { <input type="hidden" name="columns" value=columns /> });
    let moment = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
    view! {
        <QueryForm action=PAGE class="filters" label=t.filters>
            {past} {columns}
            <MomentField label=t.request_from name="from" id="request-from" value=moment(&query.from) />
            <MomentField label=t.request_until name="to" id="request-to" value=moment(&query.to) />
            <Choice label=t.request_outcome name="outcome" id="request-outcome" chosen=query.outcome.name() options=outcomes />
            <Choice label=t.request_bot name="bot" id="request-bot" chosen=bot options />
            <Field label=t.request_model name="model" id="request-model" value=query.model.unwrap_or_default() max_length=200 />
            <Field
                label=t.request_code_or_id
                name="code"
                id="request-code"
                value=query.code.unwrap_or_default()
                max_length=40
                placeholder="BD-AI-DOWN"
            />
            <div class="filters-actions">
                {only}
                <Button glyph=Glyph::Filter>{t.filter_apply}</Button>
                {reset}
            </div>
        </QueryForm>
    }
}
