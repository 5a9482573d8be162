//! One call with everything that is known of it.

use domain::views::requests::{RequestRow, TryRow};
use leptos::prelude::*;

use super::{result, way, who};
use crate::{
    Answer,
    components::{Copy, ErrorBox, Glyph, Icon, Time, TimeStyle},
    i18n::{Texts, duration, fill, group, money, use_texts},
};

/// Beside the list where there is room, over it where there is none. A plain link closes it, so it does so without script, too.
#[component]
pub(super) fn Drawer(request: Answer<Option<RequestRow>>, close: String) -> impl IntoView {
    let t = use_texts();
    let content = match request {
        Ok(Some(row)) => view! { <Details row /> }.into_any(),
        Ok(None) => view! { <p class="muted">{t.request_none_here}</p> }.into_any(),
        Err(failure) => view! { <ErrorBox error=failure.0 /> }.into_any(),
    };
    view! {
        <aside class="drawer" aria-labelledby="drawer-title">
            <header class="drawer-head">
                <h2 id="drawer-title">{t.request}</h2>
                <a class="button ghost icon-only" href=close aria-label=t.request_close title=t.request_close>
                    <Icon glyph=Glyph::Close />
                </a>
            </header>
            {content}
        </aside>
    }
}

#[component]
fn Details(row: RequestRow) -> impl IntoView {
    let t = use_texts();
    let fact = |name: &'static str, value: AnyView| {
        view! {
            <div>
                <dt>{name}</dt>
                <dd>{value}</dd>
            </div>
        }
        .into_any()
    };
    let mut facts = vec![
        fact(
            t.request_at,
            view! { <Time at=row.at style=TimeStyle::Second /> }.into_any(),
        ),
        fact(t.request_who, who(t, &row)),
    ];
    if let Some(bot) = row.bot.clone() {
        facts.push(fact(t.request_bot, bot.name.into_any()));
    }
    if let Some(id) = row.conversation {
        let link = view! { <a href=format!("/conversations/{id}")>{t.job_conversation}</a> };
        facts.push(fact(t.request_conversation, link.into_any()));
    }
    facts.extend([
        fact(
            t.request_asked_as,
            view! { <code>{row.alias.clone()}</code> }.into_any(),
        ),
        fact(
            t.request_provider,
            format!("{} · {}", row.provider, row.model).into_any(),
        ),
        fact(t.request_tokens, tokens(t, &row).into_any()),
    ]);
    if let Some(images) = row.images.filter(|images| *images > 0) {
        facts.push(fact(t.request_images, group(images).into_any()));
    }
    facts.push(fact(t.request_cost, money(row.cost).into_any()));
    if let Some(prices) = row.prices {
        facts.push(fact(t.request_prices, prices.map(money).join(" / ").into_any()));
    }
    if let Some(ms) = row.first_token_ms {
        facts.push(fact(t.request_first, duration(t, ms).into_any()));
    }
    facts.push(fact(t.request_total, duration(t, row.total_ms).into_any()));
    if row.user.is_some() {
        facts.push(fact(t.request_felt, duration(t, row.felt_ms).into_any()));
    }
    facts.push(fact(t.request_result, result(t, &row)));
    let finish = t.finish(&row.finish).map_or_else(|| row.finish.clone(), str::to_owned);
    facts.push(fact(t.request_finish, finish.into_any()));
    if let Some(status) = row.status {
        facts.push(fact(t.request_status, status.to_string().into_any()));
    }
    let words = row.code.as_deref().and_then(|code| t.error_by_name(code));
    let estimated = (!row.reported).then_some(t.request_estimated);
    let tries = (row.tries.len() > 1).then(|| {
        let title = format!("{}: {}", t.request_tries, way(&row));
        let tries = row
            .tries
            .clone()
            .into_iter()
            .map(|one| view! { <Try one /> })
            .collect_view();
        view! {
            <h3>{title}</h3>
            <ol class="tries">{tries}</ol>
        }
    });
    view! {
        <Copy text=row.id.to_string() />
        {words.map(|words| view! { <p class="bad-text">{words}</p> })}
        <dl class="facts">{facts}</dl>
        {estimated.map(|words| view! { <p class="muted">{words}</p> })}
        {tries}
    }
}

fn tokens(t: &'static Texts, row: &RequestRow) -> String {
    let numbers = [row.prompt_tokens, row.completion_tokens, row.cached_tokens]
        .map(group)
        .join(" / ");
    match row.reasoning_tokens.filter(|tokens| *tokens > 0) {
        Some(reasoning) => format!("{numbers} ({} {})", group(reasoning), t.request_reasoning),
        None => numbers,
    }
}

#[component]
fn Try(one: TryRow) -> impl IntoView {
    let t = use_texts();
    let came = match (one.code, one.status) {
        (None, _) => t.request_answered.to_owned(),
        (Some(code), Some(status)) => fill("{} ({})", &[&code, &status.to_string()]),
        (Some(code), None) => code,
    };
    view! {
        <li>
            <b>{one.provider}</b>
            " "
            <span class="muted">{one.model}</span>
            <span class="try-came">{came}" · "{duration(t, one.ms)}</span>
        </li>
    }
}
