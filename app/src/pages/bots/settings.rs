//! What staff can change about a bot: who it is, which model answers, how messages come in, its token.

use domain::{
    BotId, KeptFor, Permission, Persona, Sharing,
    views::{BotTransport, IntakeMode, bots::BotCard},
};
use leptos::{prelude::*, server_fn::ServerFn};

use super::Forms;
use crate::{
    components::{Button, Choice, Field, FormFailure, Look, Saved},
    i18n::{duration, fill, use_texts},
    state::{May, failure},
};

/// What a bot can be set to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offer {
    pub models: Vec<String>,
    /// By which questions are compared.
    pub embedders: Vec<String>,
    pub webhooks: bool,
}

#[component]
pub(super) fn Settings(bot: BotCard, offer: Offer, may: May, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let writes = may.permits(Permission::WriteBots);
    let is_telegram = bot.row.transport == BotTransport::Telegram;
    let secrets = may.permits(Permission::WriteSecrets) && is_telegram;
    let label = fill(t.bot_settings_label, &[&bot.row.name]);
    (writes || secrets).then(|| {
        let (id, mode) = (bot.row.id, bot.row.mode);
        view! {
            <details class="unfold">
                <summary aria-label=label>{t.bot_settings}</summary>
                <div class="stack-large">
                    {writes.then(|| view! { <Manner bot=bot.clone() models=offer.models forms /> })}
                    {writes.then(|| view! { <Cache bot embedders=offer.embedders forms /> })}
                    {(writes && is_telegram).then(|| view! { <Mode id mode webhooks=offer.webhooks forms /> })}
                    {secrets.then(|| view! { <Token id forms /> })}
                </div>
            </details>
            {saved(forms.edit, id)}
            {saved(forms.mode, id)}
            {saved(forms.cache, id)}
            {saved(forms.token, id)}
        }
    })
}

/// Says "saved" on the card of the bot that was saved: its forms have folded up by then.
fn saved<S>(action: ServerAction<S>, id: BotId) -> impl IntoView
where
    S: ServerFn<Output = BotId> + Clone + Send + Sync + 'static,
    S::Error: Clone + Send + Sync + 'static,
{
    let t = use_texts();
    move || {
        let is_ours = action
            .value()
            .with(|value| matches!(value, Some(Ok(saved)) if *saved == id));
        is_ours.then(|| {
            view! {
                <Saved>
                    <p>{t.bot_saved}</p>
                </Saved>
            }
        })
    }
}

#[component]
fn Manner(bot: BotCard, models: Vec<String>, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let id = bot.row.id;
    let (persona_id, hint_id) = (format!("persona-{id}"), format!("persona-hint-{id}"));
    let default = models.first().cloned().unwrap_or_default();
    let chosen = bot.model.unwrap_or_default();
    let mut options = vec![(String::new(), fill(t.bot_model_default, &[&default]))];
    if !chosen.is_empty() && !models.contains(&chosen) {
        options.push((chosen.clone(), chosen.clone()));
    }
    options.extend(models.into_iter().map(|name| (name.clone(), name)));
    view! {
        <ActionForm action=forms.edit attr:class="stack">
            <input type="hidden" name="id" value=id.to_string() />
            <div class="field">
                <label for=persona_id.clone()>{t.bot_persona}</label>
                <textarea
                    id=persona_id
                    name="persona"
                    rows="4"
                    maxlength=Persona::MAX.to_string()
                    aria-describedby=hint_id.clone()
                >
                    {bot.persona}
                </textarea>
                <p class="hint" id=hint_id>
                    {t.bot_persona_hint}
                </p>
            </div>
            <Choice label=t.model name="model" id=format!("model-{id}") chosen options />
            <Button look=Look::Main pending=forms.edit.pending() label=fill(t.bot_save_label, &[&bot.row.name])>
                {t.save}
            </Button>
        </ActionForm>
    }
}

/// Whose answers are given again, for how long, and whether similar questions count.
#[component]
fn Cache(bot: BotCard, embedders: Vec<String>, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let (id, cache) = (bot.row.id, bot.cache);
    let now = cache.sharing;
    let choice = move |sharing: Sharing, name: &'static str, hint: &'static str| {
        view! {
            <label>
                <input type="radio" name="sharing" value=sharing.name() checked=now == sharing />
                <span>
                    <b>{name}</b>
                    <span class="muted">{hint}</span>
                </span>
            </label>
        }
    };
    let mut times = KeptFor::USUAL.to_vec();
    if !times.contains(&cache.kept_for) {
        times.push(cache.kept_for);
    }
    let times = times
        .into_iter()
        .map(|time| {
            (
                time.seconds().to_string(),
                duration(t, i64::from(time.seconds()) * 1000),
            )
        })
        .collect();
    let chosen = cache.similar_by.clone().unwrap_or_default();
    let mut by = vec![(String::new(), t.cache_similar_off.to_owned())];
    if !chosen.is_empty() && !embedders.contains(&chosen) {
        by.push((chosen.clone(), chosen.clone()));
    }
    by.extend(embedders.into_iter().map(|name| (name.clone(), name)));
    let from = cache.similar_from.to_string().replace('.', t.decimal_point);
    view! {
        <ActionForm action=forms.cache attr:class="stack">
            <input type="hidden" name="id" value=id.to_string() />
            <fieldset class="radios">
                <legend>{t.cache_title}</legend>
                {choice(Sharing::Off, t.cache_off, t.cache_off_hint)}
                {choice(Sharing::User, t.cache_user, t.cache_user_hint)}
                {choice(Sharing::Shared, t.cache_shared, t.cache_shared_hint)}
            </fieldset>
            <Choice
                label=t.cache_kept_for
                name="kept_for"
                id=format!("kept-for-{id}")
                chosen=cache.kept_for.seconds().to_string()
                options=times
            />
            <Choice label=t.cache_similar name="similar_by" id=format!("similar-by-{id}") chosen options=by />
            <Field
                label=t.cache_similar_from
                name="similar_from"
                id=format!("similar-from-{id}")
                value=from
                hint=t.cache_similar_hint
                inputmode="decimal"
                autocomplete="off"
                max_length=5
                required=true
            />
            <Button pending=forms.cache.pending() label=fill(t.cache_save_label, &[&bot.row.name])>
                {t.cache_save}
            </Button>
        </ActionForm>
    }
}

#[component]
fn Mode(id: BotId, mode: IntakeMode, webhooks: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let choice = |value: &'static str, is_now: bool, off: bool, name: &'static str, hint: &'static str| {
        view! {
            <label>
                <input type="radio" name="mode" value=value checked=is_now disabled=off />
                <span>
                    <b>{name}</b>
                    <span class="muted">{hint}</span>
                </span>
            </label>
        }
    };
    let is_polling = mode == IntakeMode::Polling;
    view! {
        <ActionForm action=forms.mode attr:class="stack">
            <input type="hidden" name="id" value=id.to_string() />
            <fieldset class="radios">
                <legend>{t.bot_mode}</legend>
                {choice("polling", is_polling, false, t.bot_polling, t.bot_polling_hint)}
                {choice("webhook", !is_polling, !webhooks && is_polling, t.bot_webhook, t.bot_webhook_hint)}
            </fieldset>
            <Button pending=forms.mode.pending()>{t.bot_mode_save}</Button>
        </ActionForm>
    }
}

#[component]
fn Token(id: BotId, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let (token_id, hint_id) = (format!("token-{id}"), format!("token-hint-{id}"));
    view! {
        <ActionForm action=forms.token attr:class="stack">
            <input type="hidden" name="id" value=id.to_string() />
            <div class="field">
                <label for=token_id.clone()>{t.bot_new_token}</label>
                <input
                    id=token_id
                    name="token"
                    type="password"
                    autocomplete="off"
                    spellcheck="false"
                    required=true
                    maxlength="200"
                    aria-describedby=hint_id.clone()
                />
                <p class="hint" id=hint_id>
                    {t.bot_new_token_hint}
                </p>
            </div>
            <Button pending=forms.token.pending()>{t.bot_token_save}</Button>
        </ActionForm>
    }
}

/// Where the failures of these forms are shown: once for the page, since a plain form comes back without saying from which card.
#[component]
pub(super) fn Failures(forms: Forms) -> impl IntoView {
    view! {
        <FormFailure error=failure(forms.switch) />
        <FormFailure error=failure(forms.restart) />
        <FormFailure error=failure(forms.edit) />
        <FormFailure error=failure(forms.mode) />
        <FormFailure error=failure(forms.cache) />
        <FormFailure error=failure(forms.token) />
    }
}
