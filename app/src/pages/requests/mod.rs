//! The log of calls to models. What it shows lives in the address: filters, columns, page, and the call whose drawer is open.

mod address;
pub mod api;
mod columns;
#[cfg(feature = "ssr")]
pub mod csv;
mod drawer;
mod filters;
mod walk;

use domain::views::{Page, requests::RequestRow};
use leptos::{either::Either, prelude::*};
use leptos_router::{hooks::use_query_map, params::ParamsMap};
use uuid::Uuid;

use self::{
    address::Shown,
    api::{get_request, list_requests},
    columns::RequestColumn,
    drawer::Drawer,
    filters::{Filters, Range},
    walk::{link_id, walk},
};
use super::bots::api::list_bots;
use crate::{
    components::{
        Badge, ColumnChoice, Columns, Empty, Glyph, Icon, PageHead, Pager, Skeleton, Time, TimeStyle, Tone, page,
    },
    i18n::{Texts, fill, use_texts},
    pages::users::name_or,
};

#[component]
pub fn RequestsPage() -> impl IntoView {
    let t = use_texts();
    let params = use_query_map();
    let shown = Memo::new(move |_| params.with(Shown::read));
    let query = Memo::new(move |_| shown.with(|shown| shown.query.clone()));
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
            {move || {
                let columns = shown.with(|shown| shown.columns.clone());
                Suspend::new(async move {
                    let bots = bots.await.map(|board| board.bots).unwrap_or_default();
                    let bots = bots.into_iter().map(|bot| (bot.row.id.to_string(), bot.row.name)).collect::<Vec<_>>();
                    let rows = rows.await;
                    let shown = Shown { query: query.get_untracked(), columns };
                    page(
                        rows,
                        move |rows| {
                            view! {
                                <PageHead title=t.nav_requests lead=t.requests_lead />
                                <Range shown=shown.clone() />
                                <Filters shown=shown.clone() bots />
                                <List rows shown open />
                            }
                                .into_any()
                        },
                    )
                })
            }}
        </Transition>
        <Transition>
            {move || Suspend::new(async move {
                let shown = shown.get();
                one.await.map(|request| view! { <Drawer request shown /> })
            })}
        </Transition>
    }
}

fn opened(params: &ParamsMap) -> Option<Uuid> {
    params.get("open")?.parse().ok()
}

#[component]
fn List(rows: Page<RequestRow>, shown: Shown, open: Memo<Option<Uuid>>) -> impl IntoView {
    let t = use_texts();
    let after = shown.query.after.clone();
    let first = after.is_some().then(|| shown.address(None, None));
    let next = rows.next.as_deref().map(|key| shown.address(Some(key), None));
    if rows.rows.is_empty() {
        return Either::Left(view! {
            <Empty glyph=Glyph::Requests title=t.requests_none hint=t.requests_none_hint />
            <Pager first next />
        });
    }
    walk(rows.rows.iter().map(|row| row.id).collect(), shown.clone(), open);
    let rows = rows
        .rows
        .into_iter()
        .map(|row| {
            let href = shown.address(after.as_deref(), Some(row.id));
            view! { <Row row columns=shown.columns.clone() href open /> }
        })
        .collect_view();
    let heads = shown.columns.iter().map(|column| column.head(t)).collect_view();
    Either::Right(view! {
        <div class="table-tools">
            <p class="muted needs-script wide-only">{t.requests_keys_hint}</p>
            <ColumnChoice action=address::PAGE kept=shown.kept() shown=shown.columns.clone() words=columns::words />
            <a class="button small" href=shown.file() download="" aria-label=t.requests_csv title=t.requests_csv>
                <Icon glyph=Glyph::Download />
                <span>"CSV"</span>
            </a>
        </div>
        <div class="table-card table-scroll">
            <table class="table cards-when-narrow requests">
                <caption class="visually-hidden">{t.nav_requests}</caption>
                <thead>
                    <tr>
                        <th scope="col">{t.request_at}</th>
                        {heads}
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        <Pager first next />
    })
}

#[component]
fn Row(row: RequestRow, columns: Columns<RequestColumn>, href: String, open: Memo<Option<Uuid>>) -> impl IntoView {
    let t = use_texts();
    let id = row.id;
    let current = move || (open.get() == Some(id)).then_some("true");
    let cells = columns.iter().map(|column| column.cell(t, &row)).collect_view();
    view! {
        <tr aria-current=current>
            <th scope="row">
                <a id=link_id(id) class="request-link number" href=href>
                    <Time at=row.at style=TimeStyle::Second />
                </a>
            </th>
            {cells}
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
            trace: None,
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
}
