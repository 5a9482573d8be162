//! Who did what, to what, when, and what it changed.

pub mod api;

use domain::views::{AuditRow, Page};
use leptos::{either::Either, prelude::*};
use leptos_router::{hooks::use_query_map, location::Url, params::ParamsMap};

use self::api::{list_actions, list_audit};
use crate::{
    components::{
        Button, Choice, Diff, Empty, Field, Glyph, PageHead, Pager, QueryForm, Skeleton, Time, TimeStyle, page,
    },
    i18n::use_texts,
    state::with_filters,
};

#[component]
pub fn AuditPage() -> impl IntoView {
    let t = use_texts();
    let params = use_query_map();
    let query = Memo::new(move |_| params.with(read));
    let rows = Resource::new(
        move || query.get(),
        |query| {
            list_audit(
                query.actor,
                query.action,
                query.target,
                query.from,
                query.to,
                query.after,
            )
        },
    );
    let actions = Resource::new(|| (), |()| list_actions());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=10 /> }>
            {move || Suspend::new(async move {
                let actions = actions.await.unwrap_or_default();
                let rows = rows.await;
                let query = query.get_untracked();
                page(
                    rows,
                    move |rows| {
                        view! {
                            <PageHead title=t.nav_audit lead=t.audit_lead />
                            <Filters query=query.clone() actions />
                            <List rows query />
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

/// What the address asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Query {
    actor: Option<String>,
    action: Option<String>,
    target: Option<String>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
}

fn read(params: &ParamsMap) -> Query {
    let get = |name: &str| {
        params
            .get(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    Query {
        actor: get("actor"),
        action: get("action"),
        target: get("target"),
        from: get("from"),
        to: get("to"),
        after: get("after"),
    }
}

fn address(query: &Query, after: Option<&str>) -> String {
    let filters = [
        ("actor", query.actor.as_deref()),
        ("action", query.action.as_deref()),
        ("target", query.target.as_deref()),
        ("from", query.from.as_deref()),
        ("to", query.to.as_deref()),
        ("after", after),
    ];
    let escaped = filters.map(|(name, value)| (name, value.map(Url::escape).unwrap_or_default()));
    with_filters("/audit", escaped)
}

#[component]
fn Filters(query: Query, actions: Vec<String>) -> impl IntoView {
    let t = use_texts();
    let is_filtered = [&query.actor, &query.action, &query.target, &query.from, &query.to]
        .into_iter()
        .any(Option::is_some);
    let chosen = query.action.unwrap_or_default();
    let mut options = vec![(String::new(), t.any_action.to_owned())];
    if !chosen.is_empty() && !actions.contains(&chosen) {
        options.push((chosen.clone(), chosen.clone()));
    }
    options.extend(actions.into_iter().map(|action| {
        let words = t
            .action(&action)
            .map_or_else(|| action.clone(), |words| format!("{words} ({action})"));
        (action, words)
    }));
    view! {
        <QueryForm action="/audit" class="filters" label=t.filters>
            <Field label=t.audit_actor name="actor" id="audit-actor" value=query.actor.unwrap_or_default() max_length=200 />
            <Choice label=t.audit_action name="action" id="audit-action" chosen options />
            <Field label=t.audit_target_search name="target" id="audit-target" value=query.target.unwrap_or_default() max_length=200 />
            <Field label=t.audit_from name="from" id="audit-from" kind="date" value=query.from.unwrap_or_default() />
            <Field label=t.audit_to name="to" id="audit-to" kind="date" value=query.to.unwrap_or_default() />
            <div class="filters-actions">
                <Button glyph=Glyph::Filter>{t.filter_apply}</Button>
                {is_filtered.then(|| view! { <a class="button ghost" href="/audit">{t.filter_reset}</a> })}
            </div>
        </QueryForm>
    }
}

#[component]
fn List(rows: Page<AuditRow>, query: Query) -> impl IntoView {
    let t = use_texts();
    let first = query.after.is_some().then(|| address(&query, None));
    let next = rows.next.as_deref().map(|key| address(&query, Some(key)));
    if rows.rows.is_empty() {
        return Either::Left(view! {
            <Empty glyph=Glyph::Audit title=t.audit_none hint=t.audit_none_hint />
            <Pager first next />
        });
    }
    Either::Right(view! {
        <div class="table-card">
            <AuditRows rows=rows.rows with_target=true />
        </div>
        <Pager first next />
    })
}

/// Rows of the trail; each unfolds into what it changed.
#[component]
pub fn AuditRows(rows: Vec<AuditRow>, with_target: bool) -> impl IntoView {
    let t = use_texts();
    if rows.is_empty() {
        return view! { <Empty glyph=Glyph::Audit title=t.staff_actions_none /> }.into_any();
    }
    let rows = rows
        .into_iter()
        .map(|row| view! { <Entry row with_target /> })
        .collect_view();
    view! { <ul class="trail">{rows}</ul> }.into_any()
}

#[component]
fn Entry(row: AuditRow, with_target: bool) -> impl IntoView {
    let t = use_texts();
    let AuditRow {
        at,
        actor,
        action,
        target_kind,
        target_id,
        target_name,
        before,
        after,
        ip,
        ..
    } = row;
    let words = t.action(&action).map_or_else(|| action.clone(), str::to_owned);
    let has_change = before.is_some() || after.is_some();
    let page = match target_kind.as_str() {
        "user" => Some(format!("/users/{target_id}")),
        "conversation" => Some(format!("/conversations/{target_id}")),
        _ => None,
    };
    let name = if target_name.trim().is_empty() {
        target_id.clone()
    } else {
        target_name
    };
    let target = with_target.then(|| {
        view! {
            <span class="trail-target">
                <span class="muted">{t.target_kind(&target_kind).map_or_else(|| target_kind.clone(), str::to_owned)}</span>
                " "
                {match page {
                    Some(href) => view! { <a href=href>{name}</a> }.into_any(),
                    None => view! { <span>{name}</span> }.into_any(),
                }}
            </span>
        }
    });
    view! {
        <li>
            <div class="trail-line">
                <span class="trail-what">
                    <b>{words}</b>
                    <code>{action}</code>
                </span>
                {target}
                <span class="trail-who">{actor}</span>
                <span class="muted number trail-when">
                    <Time at style=TimeStyle::Second />
                </span>
            </div>
            <details>
                <summary>{if has_change { t.audit_details } else { t.audit_origin }}</summary>
                {has_change.then(|| view! { <Diff before after /> })}
                <dl class="facts">
                    <div>
                        <dt>{t.audit_target}</dt>
                        <dd>
                            <code>{target_id}</code>
                        </dd>
                    </div>
                    <div>
                        <dt>{t.ip}</dt>
                        <dd>{ip.unwrap_or_else(|| "—".to_owned())}</dd>
                    </div>
                </dl>
            </details>
        </li>
    }
}
