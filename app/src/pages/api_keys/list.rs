//! The list of keys. What it shows lives in the address.

use chrono::{DateTime, Utc};
use domain::{
    LimitOwner,
    views::api_keys::{KeyBoard, KeyOrder, KeyQuery, KeyRow, KeyState, KeyStates},
};
use leptos::prelude::*;
use leptos_router::{location::Url, params::ParamsMap};

use super::api::RevokeKey;
use crate::{
    components::{Ago, Badge, Button, Choice, Confirm, Empty, Glyph, Look, Pager, QueryForm, SearchField, Time, Tone},
    i18n::{fill, use_texts},
    pages::{
        plans::{edit_href, owner_words},
        user::amount_or_none,
    },
    state::with_filters,
};

const PAGE: &str = "/api-keys";

/// What the address asks for. What it says wrongly counts as not said.
pub(super) fn read(params: &ParamsMap) -> KeyQuery {
    let get = |name: &str| params.get(name).unwrap_or_default();
    KeyQuery {
        search: get("q").trim().to_owned(),
        states: get("state").parse().unwrap_or_default(),
        order: get("sort").parse().unwrap_or_default(),
        after: Some(get("after")).filter(|key| !key.is_empty()),
    }
}

fn address(query: &KeyQuery, after: Option<&str>) -> String {
    let states = (query.states != KeyStates::Any).then(|| query.states.name().to_owned());
    let order = (query.order != KeyOrder::Created).then(|| query.order.name().to_owned());
    let filters = [
        ("q", Url::escape(&query.search)),
        ("state", states.unwrap_or_default()),
        ("sort", order.unwrap_or_default()),
        ("after", after.map(Url::escape).unwrap_or_default()),
    ];
    with_filters(PAGE, filters)
}

fn is_narrowed(query: &KeyQuery) -> bool {
    !query.search.is_empty() || query.states != KeyStates::Any
}

#[component]
pub(super) fn Filters(query: KeyQuery) -> impl IntoView {
    let t = use_texts();
    let reset = (is_narrowed(&query) || query.order != KeyOrder::Created).then(|| {
        view! { <a class="button ghost" href=PAGE>{t.filter_reset}</a> }
    });
    let states = KeyStates::ALL.map(|states| (states.name().to_owned(), t.key_states(states).to_owned()));
    let orders = KeyOrder::ALL.map(|order| (order.name().to_owned(), t.key_order(order).to_owned()));
    view! {
        <QueryForm action=PAGE class="filters" role="search" label=t.filters>
            <SearchField label=t.search id="keys-q" hint=t.api_keys_search_hint value=query.search />
            <Choice label=t.api_key_state name="state" id="keys-state" chosen=query.states.name() options=states.to_vec() />
            <Choice label=t.api_keys_order name="sort" id="keys-sort" chosen=query.order.name() options=orders.to_vec() />
            <div class="filters-actions">
                <Button glyph=Glyph::Filter>{t.filter_apply}</Button>
                {reset}
            </div>
        </QueryForm>
    }
}

/// What this visitor may do with a key.
#[derive(Clone, Copy)]
pub(super) struct Acts {
    pub revoke: Option<ServerAction<RevokeKey>>,
    pub limits: bool,
    pub logs: bool,
}

#[component]
pub(super) fn Keys(board: KeyBoard, query: KeyQuery, acts: Acts) -> impl IntoView {
    let t = use_texts();
    let first = query.after.is_some().then(|| address(&query, None));
    let next = board.next.as_deref().map(|key| address(&query, Some(key)));
    if board.keys.is_empty() {
        let (title, hint) = if is_narrowed(&query) || query.after.is_some() {
            (t.api_keys_none_found, "")
        } else {
            (t.api_keys_none, t.api_keys_none_hint)
        };
        return view! {
            <Empty glyph=Glyph::Key title hint />
            <Pager first next />
        }
        .into_any();
    }
    let now = board.now;
    let rows = board
        .keys
        .into_iter()
        .map(|key| view! { <Row key now acts /> })
        .collect_view();
    view! {
        <div class="table-card">
            <table class="table cards-when-narrow api-keys">
                <caption class="visually-hidden">{t.nav_keys}</caption>
                <thead>
                    <tr>
                        <th scope="col">{t.key}</th>
                        <th scope="col">{t.api_key_opens}</th>
                        <th scope="col">{t.api_key_state}</th>
                        <th scope="col">{t.api_key_expires}</th>
                        <th scope="col">{t.api_key_last_used}</th>
                        <th scope="col"><span class="visually-hidden">{t.api_key_actions}</span></th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        <Pager first next />
    }
    .into_any()
}

#[component]
fn Row(key: KeyRow, now: DateTime<Utc>, acts: Acts) -> impl IntoView {
    let t = use_texts();
    let state = key.state(now);
    let (tone, glyph, words) = match state {
        KeyState::Good if key.ends_soon(now) => (Tone::Warn, Glyph::Clock, t.api_key_ends_soon),
        KeyState::Good => (Tone::Good, Glyph::Check, t.api_key_good),
        KeyState::Expired => (Tone::Quiet, Glyph::Clock, t.api_key_expired),
        KeyState::Revoked => (Tone::Bad, Glyph::Stop, t.api_key_revoked),
    };
    let scopes = key
        .scopes
        .iter()
        .map(|scope| t.api_scope(*scope))
        .collect::<Vec<_>>()
        .join(", ");
    let models = key
        .models
        .map_or_else(|| t.api_key_all_models.to_owned(), |models| models.join(", "));
    let expires = match key.expires {
        Some(at) => view! { <Time at /> }.into_any(),
        None => t.api_key_never.into_any(),
    };
    let used = match key.last_used {
        Some(at) => view! { <Ago at now /> }.into_any(),
        None => t.api_key_not_yet.into_any(),
    };
    let by = key.revoked.map(|revoked| {
        view! { <span class="muted">{fill(t.api_key_revoked_by, &[&revoked.by])}</span> }
    });
    let (id, name) = (key.id, key.name.clone());
    let log = acts.logs.then(|| {
        view! { <a href=format!("/requests?key={id}")>{t.api_key_requests}</a> }
    });
    let limits = key
        .limits
        .iter()
        .map(|(kind, amount)| {
            view! { <span class="muted">{t.limit(*kind)} ": " {amount_or_none(*kind, Some(*amount), t.no_limit)}</span> }
        })
        .collect_view();
    let good = state == KeyState::Good;
    let change = (acts.limits && good).then(|| {
        let owner = LimitOwner::ApiKey(id);
        let label = fill(t.limits_change_label, &[&owner_words(t, &owner, &name)]);
        view! { <a class="button ghost" href=edit_href(&owner) aria-label=label>{t.limits_title}</a> }
    });
    let act = acts.revoke.filter(|_| good).map(|revoke| {
        let label = fill(t.api_key_revoke_label, &[&name]);
        view! {
            <Confirm open=t.api_key_revoke glyph=Glyph::Stop danger=true>
                <ActionForm action=revoke attr:class="stack">
                    <input type="hidden" name="id" value=id.to_string() />
                    <p>{t.api_key_revoke_hint}</p>
                    <Button look=Look::Danger pending=revoke.pending() label>
                        {t.api_key_revoke_confirm}
                    </Button>
                </ActionForm>
            </Confirm>
        }
    });
    view! {
        <tr>
            <th scope="row" class="cell-main">
                <b>{key.name}</b>
                <span class="muted">
                    <code>{key.prefix}"…"</code>
                    " · "
                    {fill(t.api_key_made_by, &[&key.created_by])}
                    " "
                    <Time at=key.created />
                </span>
                {log}
            </th>
            <td data-label=t.api_key_opens class="cell-opens">
                <span>{scopes}<span class="muted">{models}</span>{limits}</span>
            </td>
            <td data-label=t.api_key_state>
                <span class="cell-state"><Badge tone glyph text=words />{by}</span>
            </td>
            <td data-label=t.api_key_expires>{expires}</td>
            <td data-label=t.api_key_last_used>{used}</td>
            <td class="cell-act">{change}{act}</td>
        </tr>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_keeps_what_it_says() {
        let read = |pairs: &[(&'static str, &str)]| {
            let params: ParamsMap = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            read(&params)
        };
        let narrow = read(&[
            ("q", " search "),
            ("state", "expiring"),
            ("sort", "used"),
            ("after", "~x"),
        ]);
        assert_eq!(
            address(&narrow, narrow.after.as_deref()),
            format!(
                "/api-keys?q=search&state=expiring&sort=used&after={}",
                Url::escape("~x")
            )
        );
        assert_eq!(address(&narrow, None), "/api-keys?q=search&state=expiring&sort=used");
        let wrong = read(&[("state", "lost"), ("sort", "weight")]);
        assert_eq!(wrong, KeyQuery::default());
        assert_eq!(address(&wrong, None), "/api-keys");
    }
}
