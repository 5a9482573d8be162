//! Finding a person by whatever they quoted.

pub mod api;

use domain::{
    PlanId,
    views::{Page, UserRow, UserStatus},
};
use leptos::{either::Either, prelude::*};
use leptos_router::{hooks::use_query_map, location::Url, params::ParamsMap};

use self::api::list_users;
use super::plans::api::list_plans;
use crate::{
    components::{
        Badge, Bar, Button, Choice, Empty, Glyph, PageHead, Pager, QueryForm, SearchField, Skeleton, Time, Tone, page,
    },
    i18n::{fill, money, use_texts},
    state::with_filters,
};

#[component]
pub fn UsersPage() -> impl IntoView {
    let t = use_texts();
    let params = use_query_map();
    let query = Memo::new(move |_| params.with(read));
    let users = Resource::new(
        move || query.get(),
        |query| list_users(query.search, query.status, query.plan, query.after),
    );
    // For the filter only: a failure here leaves it out.
    let plans = Resource::new(|| (), |()| list_plans());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=10 /> }>
            {move || Suspend::new(async move {
                let plans = plans.await.unwrap_or_default();
                let plans: Vec<_> = plans.into_iter().map(|plan| (plan.id.to_string(), plan.name)).collect();
                let users = users.await;
                let query = query.get_untracked();
                page(
                    users,
                    move |users| {
                        view! {
                            <PageHead title=t.nav_users lead=t.users_lead />
                            <Filters query=query.clone() plans />
                            <List users query />
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

/// What the address asks for.
#[derive(Clone, Debug, PartialEq)]
struct Query {
    search: String,
    status: UserStatus,
    plan: Option<PlanId>,
    after: Option<String>,
}

fn read(params: &ParamsMap) -> Query {
    Query {
        search: params.get("q").unwrap_or_default(),
        status: match params.get("status").as_deref() {
            Some("active") => UserStatus::Active,
            Some("blocked") => UserStatus::Blocked,
            _ => UserStatus::Any,
        },
        plan: params.get("plan").and_then(|id| id.parse::<PlanId>().ok()),
        after: params.get("after").filter(|key| !key.is_empty()),
    }
}

fn status_name(status: UserStatus) -> &'static str {
    match status {
        UserStatus::Any => "",
        UserStatus::Active => "active",
        UserStatus::Blocked => "blocked",
    }
}

fn address(query: &Query, after: Option<&str>) -> String {
    let filters = [
        ("q", Url::escape(&query.search)),
        ("status", status_name(query.status).to_owned()),
        ("plan", query.plan.map(|plan| plan.to_string()).unwrap_or_default()),
        ("after", after.map(Url::escape).unwrap_or_default()),
    ];
    with_filters("/users", filters)
}

fn is_filtered(query: &Query) -> bool {
    !query.search.is_empty() || query.status != UserStatus::Any || query.plan.is_some()
}

#[component]
fn Filters(query: Query, plans: Vec<(String, String)>) -> impl IntoView {
    let t = use_texts();
    let statuses = [UserStatus::Any, UserStatus::Active, UserStatus::Blocked]
        .map(|status| (status_name(status).to_owned(), t.user_status(status).to_owned()));
    let plan = query.plan.map(|plan| plan.to_string()).unwrap_or_default();
    let plans = std::iter::once((String::new(), t.any_plan.to_owned()))
        .chain(plans)
        .collect::<Vec<_>>();
    let reset = is_filtered(&query).then(|| view! { <a class="button ghost" href="/users">{t.filter_reset}</a> });
    view! {
        <QueryForm action="/users" class="filters" label=t.filters>
            <SearchField label=t.search id="users-q" hint=t.users_search_hint value=query.search />
            <Choice label=t.status name="status" id="users-status" chosen=status_name(query.status) options=statuses.to_vec() />
            <Choice label=t.plan name="plan" id="users-plan" chosen=plan options=plans />
            <div class="filters-actions">
                <Button glyph=Glyph::Filter>{t.filter_apply}</Button>
                {reset}
            </div>
        </QueryForm>
    }
}

#[component]
fn List(users: Page<UserRow>, query: Query) -> impl IntoView {
    let t = use_texts();
    let first = query.after.is_some().then(|| address(&query, None));
    let next = users.next.as_deref().map(|key| address(&query, Some(key)));
    if users.rows.is_empty() {
        let (title, hint) = if is_filtered(&query) {
            (t.users_none_found, t.users_none_found_hint)
        } else {
            (t.users_none, t.users_none_hint)
        };
        return Either::Left(view! {
            <Empty glyph=Glyph::Users title hint />
            <Pager first next />
        });
    }
    let rows = users.rows.into_iter().map(|user| view! { <Row user /> }).collect_view();
    Either::Right(view! {
        <div class="table-card">
            <table class="table cards-when-narrow">
                <caption class="visually-hidden">{t.nav_users}</caption>
                <thead>
                    <tr>
                        <th scope="col">{t.user}</th>
                        <th scope="col">{t.status}</th>
                        <th scope="col">{t.plan}</th>
                        <th scope="col">{t.fullest_limit}</th>
                        <th scope="col" class="number">{t.spent_month}</th>
                        <th scope="col" class="number">{t.last_seen}</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        <Pager first next />
    })
}

#[component]
fn Row(user: UserRow) -> impl IntoView {
    let t = use_texts();
    let limit = match user.fullest_percent {
        Some(percent) => {
            let text = fill(t.percent_used, &[&percent.to_string()]);
            view! {
                <span class="bar-cell">
                    <Bar used_percent=percent text />
                    <span class="number">{format!("{percent} %")}</span>
                </span>
            }
            .into_any()
        }
        None => view! { <span class="muted">{t.no_limit}</span> }.into_any(),
    };
    view! {
        <tr>
            <th scope="row" class="cell-main">
                <a href=format!("/users/{}", user.id)>{name_or(user.name, t.nameless)}</a>
                <Handle username=user.username telegram_id=user.telegram_id />
            </th>
            <td data-label=t.status>
                <UserState blocked=user.blocked />
                {user.near_limit.then(|| view! { " " <Badge tone=Tone::Warn glyph=Glyph::Limits text=t.near_limit /> })}
            </td>
            <td data-label=t.plan>{user.plan}</td>
            <td data-label=t.fullest_limit>{limit}</td>
            <td data-label=t.spent_month class="number">{money(user.spent_month)}</td>
            <td data-label=t.last_seen class="number">
                <Time at=user.last_seen />
            </td>
        </tr>
    }
}

/// Telegram names may be empty or made of spaces; a link must be seen.
pub fn name_or(name: String, otherwise: &str) -> String {
    if name.trim().is_empty() {
        otherwise.to_owned()
    } else {
        name
    }
}

/// How the person is found on Telegram, or that they are one of us.
#[component]
pub fn Handle(username: Option<String>, telegram_id: Option<i64>) -> impl IntoView {
    let t = use_texts();
    let words = match (username, telegram_id) {
        (Some(name), Some(id)) => format!("@{name} · {id}"),
        (None, Some(id)) => id.to_string(),
        (Some(name), None) => format!("@{name}"),
        (None, None) => t.playground.to_owned(),
    };
    view! { <span class="muted handle">{words}</span> }
}

#[component]
pub fn UserState(blocked: bool) -> impl IntoView {
    let t = use_texts();
    if blocked {
        view! { <Badge tone=Tone::Bad glyph=Glyph::Stop text=t.blocked /> }.into_any()
    } else {
        view! { <Badge tone=Tone::Good glyph=Glyph::Check text=t.active /> }.into_any()
    }
}
