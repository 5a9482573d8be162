//! API keys: how other programs call the gateway. A key is shown once, where it was made.

pub mod api;

use chrono::{DateTime, Utc};
use domain::{
    ApiScope, Lifetime, LimitOwner, Permission,
    views::api_keys::{FreshKey, KeyBoard, KeyRow, KeyState},
};
use leptos::{prelude::*, server_fn::ServerFn};

use self::api::{CreateKey, RevokeKey, list_keys};
use super::{
    plans::{edit_href, owner_words},
    user::amount_or_none,
};
use crate::{
    components::{
        Ago, Badge, Button, Card, Choice, Confirm, Copy, Empty, Field, FormFailure, Glyph, Look, Notice, PageHead,
        Saved, Skeleton, Time, Tone, page,
    },
    i18n::{Texts, fill, use_texts},
    state::{failure, successes, use_session},
};

#[component]
pub fn ApiKeysPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let create = ServerAction::<CreateKey>::new();
    let revoke = ServerAction::<RevokeKey>::new();
    let saves = (successes(create), successes(revoke));
    let board = Resource::new(move || (saves.0.get(), saves.1.get()), |_| list_keys());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=6 /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                let writes = may.permits(Permission::WriteKeys);
                let acts = Acts {
                    revoke: writes.then_some(revoke),
                    limits: may.permits(Permission::WriteLimits),
                    logs: may.permits(Permission::ReadRequests),
                };
                page(
                    board.await,
                    move |(board, kept)| {
                        let made = create.value().with_untracked(|value| value.as_ref().and_then(|made| made.as_ref().ok()).cloned());
                        let fresh = made.or(kept).map(|fresh| view! { <Fresh fresh base_url=board.base_url.clone() model=board.example.clone() /> });
                        let models = board.models.clone();
                        view! {
                            <PageHead title=t.nav_keys lead=t.api_keys_lead />
                            <FormFailure error=failure(create) />
                            <FormFailure error=failure(revoke) />
                            {fresh}
                            {done(revoke, t.api_key_revoked_now)}
                            <Keys board acts />
                            {writes.then(|| view! { <NewKey create models /> })}
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

/// The key itself, this once, and how to try it.
#[component]
fn Fresh(fresh: FreshKey, base_url: String, model: String) -> impl IntoView {
    let t = use_texts();
    let example = format!(
        "curl {base_url}/chat/completions \\\n  -H \"Authorization: Bearer {}\" \\\n  -H \"Content-Type: application/json\" \\\n  -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'",
        fresh.secret
    );
    view! {
        <section class="card fresh-key" aria-labelledby="fresh-key">
            <header class="card-head">
                <h2 id="fresh-key">{fill(t.api_key_made, &[&fresh.name])}</h2>
            </header>
            <Notice tone=Tone::Warn glyph=Glyph::Key>
                <p>{t.api_key_once}</p>
            </Notice>
            <Copy text=fresh.secret />
            <p class="muted">{t.api_key_try}</p>
            <pre class="code-block" tabindex="0">{example}</pre>
        </section>
    }
}

/// What this visitor may do with a key.
#[derive(Clone, Copy)]
struct Acts {
    revoke: Option<ServerAction<RevokeKey>>,
    limits: bool,
    logs: bool,
}

fn done<S>(action: ServerAction<S>, words: &'static str) -> impl IntoView
where
    S: ServerFn + Clone + Send + Sync + 'static,
    S::Output: Send + Sync + 'static,
    S::Error: Send + Sync + 'static,
{
    move || {
        action.value().with(|value| matches!(value, Some(Ok(_)))).then(|| {
            view! {
                <Saved>
                    <p>{words}</p>
                </Saved>
            }
        })
    }
}

#[component]
fn Keys(board: KeyBoard, acts: Acts) -> impl IntoView {
    let t = use_texts();
    if board.keys.is_empty() {
        return view! { <Empty glyph=Glyph::Key title=t.api_keys_none hint=t.api_keys_none_hint /> }.into_any();
    }
    let now = board.now;
    let rows = board
        .keys
        .into_iter()
        .map(|key| view! { <Row key now acts /> })
        .collect_view();
    view! {
        <div class="table-card">
            <table class="table cards-when-narrow keys">
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
    }
    .into_any()
}

#[component]
fn Row(key: KeyRow, now: DateTime<Utc>, acts: Acts) -> impl IntoView {
    let t = use_texts();
    let state = key.state(now);
    let (tone, glyph, words) = match state {
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

fn lifetimes(t: &'static Texts) -> Vec<(String, String)> {
    Lifetime::ALL
        .iter()
        .map(|lifetime| (lifetime.name().to_owned(), t.lifetime(*lifetime).to_owned()))
        .collect()
}

#[component]
fn NewKey(create: ServerAction<CreateKey>, models: Vec<String>) -> impl IntoView {
    let t = use_texts();
    let pending = create.pending();
    let scopes = ApiScope::ALL
        .into_iter()
        .map(|scope| {
            view! {
                <label class="check">
                    <input type="checkbox" name="scopes[]" value=scope.name() checked={scope == ApiScope::Chat || scope == ApiScope::Models} />
                    <span>{t.api_scope(scope)}</span>
                </label>
            }
        })
        .collect_view();
    let models = models
        .into_iter()
        .map(|model| {
            view! {
                <label class="check">
                    <input type="checkbox" name="models[]" value=model.clone() />
                    <span>{model}</span>
                </label>
            }
        })
        .collect_view();
    view! {
        <Card title=t.api_key_new id="new-key">
            <ActionForm action=create attr:class="stack-large">
                <div class="field-grid">
                    <Field label=t.api_key_name name="name" id="key-name" required=true max_length=64 autocomplete="off" hint=t.api_key_name_hint />
                    <Choice label=t.api_key_lifetime name="lifetime" id="key-lifetime" chosen=Lifetime::default().name() options=lifetimes(t) />
                </div>
                <fieldset class="checks">
                    <legend>{t.api_key_scopes}</legend>
                    {scopes}
                </fieldset>
                <fieldset class="checks">
                    <legend>{t.api_key_models}</legend>
                    {models}
                    <p class="hint">{t.api_key_models_hint}</p>
                </fieldset>
                <Button look=Look::Main glyph=Glyph::Key pending>
                    {t.api_key_create}
                </Button>
            </ActionForm>
        </Card>
    }
}
