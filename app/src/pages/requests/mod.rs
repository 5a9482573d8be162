//! The log of calls to models. What it shows lives in the address: filters, page, and the call whose drawer is open.

pub mod api;
mod drawer;

use domain::views::{
    Page,
    requests::{Outcome, RequestQuery, RequestRow},
};
use leptos::{either::Either, prelude::*};
use leptos_router::{
    hooks::{use_navigate, use_query_map},
    location::Url,
    params::ParamsMap,
};
use uuid::Uuid;

use self::{
    api::{get_request, list_requests},
    drawer::Drawer,
};
use super::bots::api::list_bots;
use crate::{
    components::{
        Badge, Button, Choice, Empty, Field, Glyph, Icon, PageHead, Pager, QueryForm, Skeleton, Time, TimeStyle, Tone,
        page,
    },
    i18n::{Texts, duration, fill, group, money, use_texts},
    pages::users::name_or,
    state::with_filters,
};

#[component]
pub fn RequestsPage() -> impl IntoView {
    let t = use_texts();
    let params = use_query_map();
    let query = Memo::new(move |_| params.with(read));
    let open = Memo::new(move |_| params.with(opened));
    let rows = Resource::new(move || query.get(), list_requests);
    let one = Resource::new(
        move || open.get(),
        |open| async move {
            match open {
                Some(id) => Some(get_request(id).await),
                None => None,
            }
        },
    );
    // For the filter only: a failure here leaves it out.
    let bots = Resource::new(|| (), |()| list_bots());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=10 /> }>
            {move || Suspend::new(async move {
                let bots = bots.await.map(|board| board.bots).unwrap_or_default();
                let bots = bots.into_iter().map(|bot| (bot.row.id.to_string(), bot.row.name)).collect::<Vec<_>>();
                let rows = rows.await;
                let query = query.get_untracked();
                page(
                    rows,
                    move |rows| {
                        view! {
                            <PageHead title=t.nav_requests lead=t.requests_lead />
                            <Filters query=query.clone() bots />
                            <List rows query open />
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
        <Transition>
            {move || Suspend::new(async move {
                let close = query.with(|query| address(query, query.after.as_deref(), None));
                one.await.map(|request| view! { <Drawer request close /> })
            })}
        </Transition>
    }
}

/// What the address asks for. What it says wrongly counts as not said.
fn read(params: &ParamsMap) -> RequestQuery {
    let get = |name: &str| {
        params
            .get(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    RequestQuery {
        outcome: get("outcome").and_then(|text| text.parse().ok()).unwrap_or_default(),
        code: get("code"),
        model: get("model"),
        bot: get("bot").and_then(|text| text.parse().ok()),
        user: get("user").and_then(|text| text.parse().ok()),
        key: get("key").and_then(|text| text.parse().ok()),
        conversation: get("conversation").and_then(|text| text.parse().ok()),
        after: get("after"),
    }
}

fn opened(params: &ParamsMap) -> Option<Uuid> {
    params.get("open")?.parse().ok()
}

fn address(query: &RequestQuery, after: Option<&str>, open: Option<Uuid>) -> String {
    let outcome = (query.outcome != Outcome::Any).then(|| query.outcome.name().to_owned());
    let filters = [
        ("outcome", outcome),
        ("code", query.code.as_deref().map(Url::escape)),
        ("model", query.model.as_deref().map(Url::escape)),
        ("bot", query.bot.map(|id| id.to_string())),
        ("user", query.user.map(|id| id.to_string())),
        ("key", query.key.map(|id| id.to_string())),
        ("conversation", query.conversation.map(|id| id.to_string())),
        ("after", after.map(Url::escape)),
        ("open", open.map(|id| id.to_string())),
    ];
    with_filters(
        "/requests",
        filters.map(|(name, value)| (name, value.unwrap_or_default())),
    )
}

#[component]
fn Filters(query: RequestQuery, bots: Vec<(String, String)>) -> impl IntoView {
    let t = use_texts();
    let is_filtered = query != RequestQuery::default();
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
    .filter_map(|(name, words, value, without)| {
        let value = value?;
        Some(view! {
            <input type="hidden" name=name value=value />
            <a class="button small" href=address(&without, None, None) title=t.request_without>
                <span>{words}</span>
                <span aria-hidden="true">"×"</span>
                <span class="visually-hidden">{t.request_without}</span>
            </a>
        })
    })
    .collect_view();
    view! {
        <QueryForm action="/requests" class="filters" label=t.filters>
            <Choice label=t.request_outcome name="outcome" id="request-outcome" chosen=query.outcome.name() options=outcomes />
            <Choice label=t.request_bot name="bot" id="request-bot" chosen=bot options />
            <Field label=t.request_model name="model" id="request-model" value=query.model.unwrap_or_default() max_length=200 />
            <Field
                label=t.request_code
                name="code"
                id="request-code"
                value=query.code.unwrap_or_default()
                max_length=40
                placeholder="BD-AI-DOWN"
            />
            <div class="filters-actions">
                {only}
                <Button glyph=Glyph::Filter>{t.filter_apply}</Button>
                {is_filtered.then(|| view! { <a class="button ghost" href="/requests">{t.filter_reset}</a> })}
            </div>
        </QueryForm>
    }
}

#[component]
fn List(rows: Page<RequestRow>, query: RequestQuery, open: Memo<Option<Uuid>>) -> impl IntoView {
    let t = use_texts();
    let first = query.after.is_some().then(|| address(&query, None, None));
    let next = rows.next.as_deref().map(|key| address(&query, Some(key), None));
    if rows.rows.is_empty() {
        return Either::Left(view! {
            <Empty glyph=Glyph::Requests title=t.requests_none hint=t.requests_none_hint />
            <Pager first next />
        });
    }
    walk(rows.rows.iter().map(|row| row.id).collect(), query.clone(), open);
    let rows = rows
        .rows
        .into_iter()
        .map(|row| {
            let href = address(&query, query.after.as_deref(), Some(row.id));
            view! { <Row row href open /> }
        })
        .collect_view();
    Either::Right(view! {
        <p class="muted needs-script wide-only">{t.requests_keys_hint}</p>
        <div class="table-card table-scroll">
            <table class="table cards-when-narrow requests">
                <caption class="visually-hidden">{t.nav_requests}</caption>
                <thead>
                    <tr>
                        <th scope="col">{t.request_at}</th>
                        <th scope="col">{t.request_who}</th>
                        <th scope="col">{t.request_model}</th>
                        <th scope="col" class="number">{t.request_tokens}</th>
                        <th scope="col" class="number">{t.request_cost}</th>
                        <th scope="col" class="number">{t.request_first}</th>
                        <th scope="col" class="number">{t.request_total}</th>
                        <th scope="col">{t.request_result}</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        <Pager first next />
    })
}

#[component]
fn Row(row: RequestRow, href: String, open: Memo<Option<Uuid>>) -> impl IntoView {
    let t = use_texts();
    let id = row.id;
    let current = move || (open.get() == Some(id)).then_some("true");
    let first = row.first_token_ms.map_or_else(|| "—".to_owned(), |ms| duration(t, ms));
    view! {
        <tr aria-current=current>
            <th scope="row">
                <a id=link_id(id) class="request-link number" href=href>
                    <Time at=row.at style=TimeStyle::Second />
                </a>
            </th>
            <td data-label=t.request_who class="cell-who">
                <span>
                    {who(t, &row)}
                    {row.bot.clone().map(|bot| view! { <span class="muted">{bot.name}</span> })}
                </span>
            </td>
            <td data-label=t.request_model class="cell-way">
                <span>
                    {row.alias.clone()}
                    <span class="muted">{way(&row)}</span>
                </span>
            </td>
            <td data-label=t.request_tokens class="number">
                {format!("{} / {} / {}", group(row.prompt_tokens), group(row.completion_tokens), group(row.cached_tokens))}
            </td>
            <td data-label=t.request_cost class="number">{money(row.cost)}</td>
            <td data-label=t.request_first class="number">{first}</td>
            <td data-label=t.request_total class="number">{duration(t, row.total_ms)}</td>
            <td data-label=t.request_result>{result(t, &row)}</td>
        </tr>
    }
}

/// The person or the program that asked.
fn who(t: &'static Texts, row: &RequestRow) -> AnyView {
    if let Some(user) = row.user.clone() {
        return view! { <a href=format!("/users/{}", user.id)>{name_or(user.name, t.nameless)}</a> }.into_any();
    }
    match row.key.clone() {
        Some(key) => view! {
            <span class="with-icon">
                <Icon glyph=Glyph::Key />
                <span>{key.name}</span>
            </span>
        }
        .into_any(),
        None => "—".into_any(),
    }
}

/// Who was asked, in order: `openai → local`.
fn way(row: &RequestRow) -> String {
    if row.tries.len() < 2 {
        return row.provider.clone();
    }
    let names: Vec<&str> = row.tries.iter().map(|one| one.provider.as_str()).collect();
    names.join(" → ")
}

/// What came of it in the list: the badge, and in small what that leaves unsaid.
fn result(t: &'static Texts, row: &RequestRow) -> AnyView {
    let more = unsaid(t, row);
    view! {
        <span>
            {badge(t, row)}
            {(!more.is_empty()).then(|| view! { <span class="muted">{more.join(", ")}</span> })}
        </span>
    }
    .into_any()
}

/// The code to quote, the cache it came from, or how it ended.
fn badge(t: &'static Texts, row: &RequestRow) -> AnyView {
    if let Some(code) = row.code.clone() {
        return view! { <Badge tone=Tone::Bad glyph=Glyph::Warning text=code /> }.into_any();
    }
    if let Some(words) = cache_words(t, row) {
        return view! { <Badge tone=Tone::Accent glyph=Glyph::Bolt text=words /> }.into_any();
    }
    let words = finish_words(t, row);
    match row.finish.as_str() {
        "stop" | "tool_calls" => view! { <Badge tone=Tone::Good glyph=Glyph::Check text=words /> }.into_any(),
        "failed" => view! { <Badge tone=Tone::Bad glyph=Glyph::Warning text=words /> }.into_any(),
        _ => view! { <Badge tone=Tone::Quiet glyph=Glyph::Info text=words /> }.into_any(),
    }
}

/// What the badge does not say: the cache of a failure, how an answer with a code or from the cache ended, and what a program was
/// answered with, unless that was 200.
fn unsaid(t: &'static Texts, row: &RequestRow) -> Vec<String> {
    let (failed, cached) = (row.code.is_some(), cache_words(t, row));
    let cache = cached.filter(|_| failed).map(str::to_owned);
    let finish = (failed || cached.is_some()).then(|| finish_words(t, row));
    let status = row.status.filter(|status| ![0, 200].contains(status));
    let status = status.map(|status| fill(t.request_http, &[&status.to_string()]));
    [cache, finish, status].into_iter().flatten().collect()
}

fn cache_words(t: &'static Texts, row: &RequestRow) -> Option<&'static str> {
    match row.cache.as_str() {
        "" => None,
        "semantic" => Some(t.request_similar),
        _ => Some(t.request_cached),
    }
}

fn finish_words(t: &'static Texts, row: &RequestRow) -> String {
    t.finish(&row.finish).map_or_else(|| row.finish.clone(), str::to_owned)
}

fn link_id(id: Uuid) -> String {
    format!("request-{id}")
}

/// The one `by` places further on; the first, or last, where none is the present one.
fn step(ids: &[Uuid], now: Option<Uuid>, forward: bool) -> Option<Uuid> {
    let place = now.and_then(|now| ids.iter().position(|id| *id == now));
    let next = match (place, forward) {
        (None, true) => 0,
        (None, false) => ids.len().checked_sub(1)?,
        (Some(place), true) => place + 1,
        (Some(place), false) => place.checked_sub(1)?,
    };
    ids.get(next).copied()
}

/// J and K and the arrows go along the rows, with the drawer when it is open; Escape closes that.
fn walk(ids: Vec<Uuid>, query: RequestQuery, open: Memo<Option<Uuid>>) {
    let navigate = use_navigate();
    let keys = window_event_listener(leptos::ev::keydown, move |event| {
        if event.ctrl_key() || event.meta_key() || event.alt_key() || types() {
            return;
        }
        let forward = match event.key().as_str() {
            "j" | "J" | "ArrowDown" => true,
            "k" | "K" | "ArrowUp" => false,
            "Escape" => {
                if let Some(id) = open.get_untracked() {
                    event.prevent_default();
                    navigate(&address(&query, query.after.as_deref(), None), Default::default());
                    focus(id);
                }
                return;
            }
            _ => return,
        };
        let drawn = open.get_untracked();
        let Some(next) = step(&ids, drawn.or_else(focused), forward) else {
            return;
        };
        event.prevent_default();
        focus(next);
        if drawn.is_some() {
            navigate(&address(&query, query.after.as_deref(), Some(next)), Default::default());
        }
    });
    on_cleanup(move || keys.remove());
}

/// Somebody is typing into a field.
#[cfg(feature = "hydrate")]
fn types() -> bool {
    document()
        .active_element()
        .is_some_and(|element| matches!(element.tag_name().as_str(), "INPUT" | "TEXTAREA" | "SELECT"))
}

#[cfg(feature = "hydrate")]
fn focused() -> Option<Uuid> {
    document().active_element()?.id().strip_prefix("request-")?.parse().ok()
}

#[cfg(feature = "hydrate")]
fn focus(id: Uuid) {
    use leptos::{wasm_bindgen::JsCast, web_sys::HtmlElement};
    let link = document().get_element_by_id(&link_id(id));
    if let Some(link) = link.and_then(|link| link.dyn_into::<HtmlElement>().ok()) {
        let _ = link.focus();
    }
}

#[cfg(not(feature = "hydrate"))]
fn types() -> bool {
    false
}

#[cfg(not(feature = "hydrate"))]
fn focused() -> Option<Uuid> {
    None
}

#[cfg(not(feature = "hydrate"))]
fn focus(_: Uuid) {}

#[cfg(test)]
mod tests {
    use domain::{Lang, Money, views::requests::BilledAt};

    use super::*;
    use crate::i18n::texts;

    /// A call that ended well.
    pub(super) fn call() -> RequestRow {
        RequestRow {
            id: Uuid::nil(),
            at: Default::default(),
            user: None,
            key: None,
            bot: None,
            conversation: None,
            alias: "smart".to_owned(),
            provider: "openai".to_owned(),
            model: "gpt-4o".to_owned(),
            tries: Vec::new(),
            prompt_tokens: 100,
            cached_tokens: 10,
            completion_tokens: 90,
            reasoning_tokens: Some(0),
            audio_input_tokens: None,
            audio_output_tokens: None,
            images: None,
            reported: true,
            cost: Money::ZERO,
            billed_at: BilledAt::default(),
            first_token_ms: None,
            total_ms: 1,
            felt_ms: 1,
            cache: String::new(),
            finish: "stop".to_owned(),
            code: None,
            status: Some(200),
        }
    }

    #[test]
    fn the_list_says_what_the_badge_leaves_out() {
        let said = |lang: Lang, cache: &str, code: Option<&str>, finish: &str, status: Option<i32>| {
            let row = RequestRow {
                cache: cache.to_owned(),
                code: code.map(str::to_owned),
                finish: finish.to_owned(),
                status,
                ..call()
            };
            unsaid(texts(lang), &row).join(", ")
        };
        let en = |cache, code, finish, status| said(Lang::En, cache, code, finish, status);
        assert_eq!(en("", None, "stop", Some(200)), "");
        assert_eq!(en("", None, "length", None), "", "it is on the badge");
        assert_eq!(en("exact", None, "length", Some(200)), "Longest allowed");
        assert_eq!(en("", Some("BD-AI-DOWN"), "failed", Some(502)), "Failed, HTTP 502");
        assert_eq!(
            en("semantic", Some("BD-AI-CUT"), "cut", None),
            "From the cache, of a similar question, Broke off"
        );
        assert_eq!(en("", None, "gone", Some(0)), "", "nobody was answered");
        assert_eq!(said(Lang::Ru, "exact", None, "stop", None), "До конца");
    }

    #[test]
    fn the_walk_begins_at_an_end_and_stops_at_the_other() {
        let ids = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(step(&ids, None, true), Some(ids[0]));
        assert_eq!(step(&ids, None, false), Some(ids[2]));
        assert_eq!(step(&ids, Some(ids[0]), true), Some(ids[1]));
        assert_eq!(step(&ids, Some(ids[2]), true), None);
        assert_eq!(step(&ids, Some(ids[0]), false), None);
        assert_eq!(step(&[], None, false), None);
    }

    #[test]
    fn the_address_keeps_what_it_says() {
        let mut params = ParamsMap::new();
        params.insert("outcome", "failed".to_owned());
        params.insert("code", "BD-AI-DOWN".to_owned());
        params.insert("bot", "not an id".to_owned());
        let query = read(&params);
        let code = Url::escape("BD-AI-DOWN");
        assert_eq!(
            address(&query, None, None),
            format!("/requests?outcome=failed&code={code}")
        );
        assert_eq!(
            address(&RequestQuery::default(), Some("1~2"), Some(Uuid::nil())),
            format!("/requests?after={}&open={}", Url::escape("1~2"), Uuid::nil())
        );
    }
}
