//! Who answers: the names people ask for and where they lead, providers with their keys, models with their prices.

pub mod api;
mod names;
mod provider;

use domain::{ModelKind, Permission};
use leptos::prelude::*;

use self::{
    api::{
        AddKey, RaiseAlias, RaiseTarget, RemoveAlias, RemoveKey, RemoveModel, RemoveProvider, SaveAlias, SaveModel,
        SaveProvider, TestModel, list_models,
    },
    names::Names,
    provider::{NewProvider, Provider},
};
use crate::{
    components::{Empty, FormFailure, Glyph, Notice, PageHead, Skeleton, Tone, page},
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
    test: ServerAction<TestModel>,
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
    let board = Resource::new(move || saves.map(|saved| saved.get()), |_| list_models());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                let writes = may.permits(Permission::WriteModels);
                let secrets = may.permits(Permission::WriteSecrets);
                let limits = may.permits(Permission::WriteLimits);
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
                            {board
                                .is_demo
                                .then(|| {
                                    view! {
                                        <Notice tone=Tone::Warn glyph=Glyph::Info>
                                            <p>{t.models_demo}</p>
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
