//! API keys: how other programs call the gateway. A key is shown once, where it was made.

pub mod api;
mod list;

use domain::{ApiScope, Lifetime, Permission, views::api_keys::FreshKey};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_router::hooks::use_query_map;

use self::{
    api::{CreateKey, RevokeKey, list_keys},
    list::{Acts, Filters, Keys, read},
};
use crate::{
    components::{
        Button, Card, Choice, Copy, Field, FormFailure, Glyph, Look, Notice, PageHead, Saved, Skeleton, Tone, page,
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
    let params = use_query_map();
    let query = Memo::new(move |_| params.with(read));
    let board = Resource::new(
        move || (query.get(), saves.0.get(), saves.1.get()),
        |(query, ..)| list_keys(query),
    );
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
                let board = board.await;
                let query = query.get_untracked();
                page(
                    board,
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
                            <Filters query=query.clone() />
                            <Keys board query acts />
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
