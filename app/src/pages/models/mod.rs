//! Who answers: the names people ask for and where they lead, providers with their keys, models with their prices.

pub mod api;
mod names;
mod provider;

use domain::{ModelKind, Permission, views::models::Change};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_router::hooks::use_query_map;

use self::{
    api::{
        AddKey, RaiseAlias, RaiseTarget, RemoveAlias, RemoveKey, RemoveModel, RemoveProvider, SaveAlias, SaveModel,
        SaveProvider, TestProvider, last_change, list_models,
    },
    names::Names,
    provider::{NewProvider, Provider},
};
use crate::{
    components::{Diff, Empty, FormFailure, Glyph, Notice, PageHead, Saved, Skeleton, Tone, page},
    i18n::{Texts, use_texts},
    state::{failure, successes, use_session},
};

/// The forms of the page; they outlive the content, so that what they said stays when it is fetched anew.
#[derive(Clone, Copy)]
struct Forms {
    provider: ServerAction<SaveProvider>,
    remove_provider: ServerAction<RemoveProvider>,
    add_key: ServerAction<AddKey>,
    remove_key: ServerAction<RemoveKey>,
    model: ServerAction<SaveModel>,
    remove_model: ServerAction<RemoveModel>,
    test: ServerAction<TestProvider>,
    alias: ServerAction<SaveAlias>,
    raise: ServerAction<RaiseAlias>,
    raise_target: ServerAction<RaiseTarget>,
    remove_alias: ServerAction<RemoveAlias>,
}

#[component]
pub fn ModelsPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let forms = Forms {
        provider: ServerAction::new(),
        remove_provider: ServerAction::new(),
        add_key: ServerAction::new(),
        remove_key: ServerAction::new(),
        model: ServerAction::new(),
        remove_model: ServerAction::new(),
        test: ServerAction::new(),
        alias: ServerAction::new(),
        raise: ServerAction::new(),
        raise_target: ServerAction::new(),
        remove_alias: ServerAction::new(),
    };
    let saves = [
        successes(forms.provider),
        successes(forms.remove_provider),
        successes(forms.add_key),
        successes(forms.remove_key),
        successes(forms.model),
        successes(forms.remove_model),
        successes(forms.alias),
        successes(forms.raise),
        successes(forms.raise_target),
        successes(forms.remove_alias),
    ];
    let saved = saved_now(forms, saves);
    let query = use_query_map();
    let plainly = Memo::new(move |_| query.with(|query| query.get("saved")));
    let plain = Resource::new(
        move || plainly.get(),
        |saved| async move {
            match saved.as_deref() {
                None => None,
                Some("nothing") => Some(Change::default()),
                Some(saved) => last_change(saved.to_owned()).await.ok().flatten(),
            }
        },
    );
    let board = Resource::new(move || saves.map(|saved| saved.get()), |_| list_models());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                let writes = may.permits(Permission::WriteModels);
                let secrets = may.permits(Permission::WriteSecrets);
                let limits = may.permits(Permission::WriteLimits);
                let plain = plain.await;
                page(
                    board.await,
                    move |board| {
                        let now = board.now;
                        let empty = board.providers.is_empty();
                        let cards = board
                            .providers
                            .clone()
                            .into_iter()
                            .map(|provider| view! { <Provider provider now writes secrets forms /> })
                            .collect::<Vec<_>>();
                        view! {
                            <PageHead title=t.nav_models lead=t.models_lead />
                            <Failures forms />
                            <SavedNote saved plain />
                            {board
                                .is_demo
                                .then(|| {
                                    view! {
                                        <Notice tone=Tone::Warn glyph=Glyph::Info>
                                            <p>{t.models_demo}</p>
                                        </Notice>
                                    }
                                })}
                            {board
                                .is_away
                                .then(|| {
                                    view! {
                                        <Notice tone=Tone::Bad glyph=Glyph::Warning>
                                            <p>{t.models_away}</p>
                                        </Notice>
                                    }
                                })}
                            {(!board.aliases.is_empty() || (writes && !empty))
                                .then(|| view! { <Names board=board.clone() writes limits forms /> })}
                            <h2 class="section-title">{t.providers}</h2>
                            {if empty {
                                view! { <Empty glyph=Glyph::Key title=t.providers_none hint=t.providers_none_hint /> }.into_any()
                            } else {
                                view! { <div class="stack-large">{cards}</div> }.into_any()
                            }}
                            {(writes && secrets).then(|| view! { <NewProvider forms /> })}
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

/// What the form that was sent last has saved; `None` when that was one which saves nothing of its own.
fn saved_now(forms: Forms, saves: [Memo<usize>; 10]) -> Memo<Option<Change>> {
    let past = Memo::new(move |before: Option<&([usize; 10], Option<Change>)>| {
        let now = saves.map(|count| count.get());
        let (then, shown) = before.cloned().unwrap_or_default();
        let sent = (0..now.len()).find(|at| now[*at] != then[*at]);
        // By their places among `saves`.
        let shown = match sent {
            None => shown,
            Some(0) => answered(forms.provider),
            Some(4) => answered(forms.model),
            Some(6) => answered(forms.alias),
            Some(_) => None,
        };
        (now, shown)
    });
    Memo::new(move |_| past.with(|(_, shown)| shown.clone()))
}

fn answered<S>(action: ServerAction<S>) -> Option<Change>
where
    S: ServerFn<Output = Change> + Clone + Send + Sync + 'static,
    S::Error: Clone + Send + Sync + 'static,
{
    action
        .value()
        .with_untracked(|value| value.as_ref().and_then(|result| result.as_ref().ok()).cloned())
}

/// What a save has changed: as the server answered it, or, without script, as the trail has it.
#[component]
fn SavedNote(saved: Memo<Option<Change>>, plain: Option<Change>) -> impl IntoView {
    let t = use_texts();
    move || {
        let Change { name, before, after } = saved.get().or_else(|| plain.clone())?;
        let shown = if before.is_none() && after.is_none() {
            view! { <p>{t.saved_nothing}</p> }.into_any()
        } else {
            view! {
                <p>{t.saved}" "<b>{name}</b></p>
                <Diff before after />
            }
            .into_any()
        };
        Some(view! { <Saved>{shown}</Saved> })
    }
}

/// Once for the page: a plain form comes back without saying from which card.
#[component]
fn Failures(forms: Forms) -> impl IntoView {
    view! {
        <FormFailure error=failure(forms.provider) />
        <FormFailure error=failure(forms.remove_provider) />
        <FormFailure error=failure(forms.add_key) />
        <FormFailure error=failure(forms.remove_key) />
        <FormFailure error=failure(forms.model) />
        <FormFailure error=failure(forms.remove_model) />
        <FormFailure error=failure(forms.test) />
        <FormFailure error=failure(forms.alias) />
        <FormFailure error=failure(forms.raise) />
        <FormFailure error=failure(forms.raise_target) />
        <FormFailure error=failure(forms.remove_alias) />
    }
}

fn kind_words(t: &Texts, kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Chat => t.model_chat,
        ModelKind::Embedding => t.model_embedding,
        ModelKind::Image => t.model_image,
        ModelKind::Transcription => t.model_transcription,
        ModelKind::Speech => t.model_speech,
    }
}
