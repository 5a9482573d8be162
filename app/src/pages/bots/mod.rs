//! The bots: what they do, what stands in their way, and how to add one.

pub mod api;
mod settings;

use chrono::{DateTime, Utc};
use domain::{
    LimitOwner, Permission,
    views::{BotRow, BotTransport, IntakeMode, bots::BotCard},
};
use leptos::prelude::*;

use self::{
    api::{AddBot, EditBot, ReplaceBotToken, RestartBot, SetBotCache, SetBotEnabled, SetBotMode, list_bots},
    settings::{Failures, Offer, Settings},
};
use crate::{
    components::{
        Ago, Badge, Button, Card, Confirm, Empty, FormFailure, Glyph, Icon, LimitLine, Look, Notice, PageHead, Saved,
        SecretField, Skeleton, Tone, page,
    },
    i18n::{duration, fill, group, use_texts},
    pages::plans::{edit_href, owner_words},
    state::{May, failure, successes, use_session},
};

/// The forms of the cards; they outlive the content, so that what they said stays when it is fetched anew.
#[derive(Clone, Copy)]
struct Forms {
    switch: ServerAction<SetBotEnabled>,
    restart: ServerAction<RestartBot>,
    edit: ServerAction<EditBot>,
    mode: ServerAction<SetBotMode>,
    cache: ServerAction<SetBotCache>,
    token: ServerAction<ReplaceBotToken>,
}

/// A bot that is this far behind has something in its way.
const LATE_MS: i64 = 60_000;

#[component]
pub fn BotsPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let add = ServerAction::<AddBot>::new();
    let forms = Forms {
        switch: ServerAction::new(),
        restart: ServerAction::new(),
        edit: ServerAction::new(),
        mode: ServerAction::new(),
        cache: ServerAction::new(),
        token: ServerAction::new(),
    };
    let saves = [
        successes(add),
        successes(forms.switch),
        successes(forms.restart),
        successes(forms.edit),
        successes(forms.mode),
        successes(forms.cache),
        successes(forms.token),
    ];
    let bots = Resource::new(move || saves.map(|saved| saved.get()), |_| list_bots());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=6 /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                page(
                    bots.await,
                    move |board| {
                        let adds = may.permits(Permission::WriteSecrets);
                        let offer = Offer { models: board.models, embedders: board.embedders, webhooks: board.webhooks };
                        let now = board.now;
                        let cards = board
                            .bots
                            .into_iter()
                            .map(|bot| view! { <Bot bot offer=offer.clone() now may=may.clone() forms /> })
                            .collect::<Vec<_>>();
                        view! {
                            <PageHead title=t.nav_bots lead=t.bots_lead />
                            <Failures forms />
                            {if cards.is_empty() {
                                view! { <Empty glyph=Glyph::Bots title=t.bots_empty hint=t.bots_empty_hint /> }.into_any()
                            } else {
                                view! { <div class="grid-cards">{cards}</div> }.into_any()
                            }}
                            {adds.then(|| view! { <NewBot add /> })}
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

/// Whether a bot does what staff want of it.
#[component]
pub fn BotState(bot: BotRow) -> impl IntoView {
    let t = use_texts();
    let (tone, glyph, text) = match (bot.enabled, bot.running, bot.fault.is_some()) {
        (false, ..) => (Tone::Quiet, Glyph::Stop, t.bot_stopped),
        (true, _, true) => (Tone::Bad, Glyph::Warning, t.bot_fault),
        (true, true, false) => (Tone::Good, Glyph::Check, t.bot_running),
        (true, false, false) => (Tone::Warn, Glyph::Clock, t.bot_starting),
    };
    view! { <Badge tone glyph text /> }
}

#[component]
fn Bot(bot: BotCard, offer: Offer, now: DateTime<Utc>, may: May, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let card = bot.clone();
    let health = view! { <Health bot=bot.clone() now /> };
    let limits = bot
        .limits
        .into_iter()
        .map(|limit| view! { <LimitLine limit /> })
        .collect::<Vec<_>>();
    let bot = bot.row;
    let limits_link = may.permits(Permission::WriteLimits).then(|| {
        let owner = LimitOwner::Bot(bot.id);
        let label = fill(t.limits_change_label, &[&owner_words(t, &owner, &bot.name)]);
        view! { <a class="button ghost" href=edit_href(&owner) aria-label=label>{t.limits_title}</a> }
    });
    let compares = card.cache.similar_by.is_some() && may.permits(Permission::ReadConversations);
    let near_link = compares.then(|| {
        let (href, label) = (format!("/bots/{}/near", bot.id), fill(t.near_title, &[&bot.name]));
        view! { <a class="button ghost" href=href aria-label=label>{t.near_link}</a> }
    });
    let switch = forms.switch;
    let heading = format!("bot-{}", bot.id);
    let way = match (bot.transport, bot.mode) {
        (BotTransport::Browser, _) => t.bot_browser,
        (BotTransport::Telegram, IntakeMode::Polling) => t.bot_polling,
        (BotTransport::Telegram, IntakeMode::Webhook) => t.bot_webhook,
    };
    let talks = may.permits(Permission::UsePlayground) && bot.transport == BotTransport::Browser;
    let switches = may.permits(Permission::WriteBots);
    let pending = switch.pending();
    let id = bot.id.to_string();
    let name = bot.name.clone();
    let stop_hint = match bot.transport {
        BotTransport::Telegram => t.bot_stop_hint,
        BotTransport::Browser => t.bot_stop_hint_browser,
    };
    let controls = switches.then(|| {
        if bot.enabled {
            view! {
                <Confirm open=t.bot_stop glyph=Glyph::Stop>
                    <ActionForm action=switch attr:class="stack">
                        <input type="hidden" name="id" value=id.clone() />
                        <input type="hidden" name="enabled" value="false" />
                        <p>{fill(stop_hint, &[&name])}</p>
                        <Button look=Look::Danger pending>
                            {t.bot_stop_confirm}
                        </Button>
                    </ActionForm>
                </Confirm>
            }
            .into_any()
        } else {
            view! {
                <ActionForm action=switch>
                    <input type="hidden" name="id" value=id.clone() />
                    <input type="hidden" name="enabled" value="true" />
                    <Button glyph=Glyph::Play pending label=fill(t.bot_start_label, &[&name])>
                        {t.bot_start}
                    </Button>
                </ActionForm>
            }
            .into_any()
        }
    });
    view! {
        <section class="card" aria-labelledby=heading>
            <header class="card-head">
                <div class="card-title">
                <h2 id=heading.clone()>{bot.name.clone()}</h2>
                {bot
                    .username
                    .clone()
                    .map(|name| {
                        view! {
                            <a
                                class="muted"
                                href=format!("https://t.me/{name}")
                                target="_blank"
                                rel="noopener noreferrer"
                            >
                                {format!("@{name}")}
                            </a>
                        }
                    })}
                </div>
                <BotState bot=bot.clone() />
            </header>
            {bot
                .fault
                .clone()
                .map(|fault| {
                    view! {
                        <Notice tone=Tone::Bad glyph=Glyph::Warning>
                            <p>{t.fault(&fault)}</p>
                        </Notice>
                        {(switches && bot.enabled && bot.transport == BotTransport::Telegram)
                            .then(|| view! { <Again bot=bot.clone() forms /> })}
                    }
                })}
            <dl class="facts">
                <div>
                    <dt>{t.bot_way}</dt>
                    <dd>{way}</dd>
                </div>
                <div>
                    <dt>{t.model}</dt>
                    <dd>{bot.model.clone()}</dd>
                </div>
                <div>
                    <dt>{t.bot_today}</dt>
                    <dd>{group(bot.messages_today)}</dd>
                </div>
                {health}
            </dl>
            {(!limits.is_empty()).then(|| view! { <ul class="limits" aria-label=t.limits_title>{limits}</ul> })}
            <div class="card-actions">
                {talks
                    .then(|| {
                        view! {
                            <a
                                class="button"
                                href=format!("/bots/{}/playground", bot.id)
                                aria-label=fill(t.playground_with, &[&bot.name])
                            >
                                <Icon glyph=Glyph::Chat />
                                <span>{t.playground}</span>
                            </a>
                        }
                    })} {controls} {limits_link} {near_link}
            </div>
            <Settings bot=card offer may forms />
        </section>
    }
}

/// Starts the intake of a faulty bot at once, instead of at its next attempt.
#[component]
fn Again(bot: BotRow, forms: Forms) -> impl IntoView {
    let t = use_texts();
    view! {
        <ActionForm action=forms.restart>
            <input type="hidden" name="id" value=bot.id.to_string() />
            <Button glyph=Glyph::Play pending=forms.restart.pending() label=fill(t.bot_again_label, &[&bot.name])>
                {t.bot_again}
            </Button>
        </ActionForm>
    }
}

/// How the bot is doing: who runs it, when something came last, how far it is behind.
#[component]
fn Health(bot: BotCard, now: DateTime<Utc>) -> impl IntoView {
    let t = use_texts();
    let is_telegram = bot.row.transport == BotTransport::Telegram;
    let fact = |name: &'static str, alarm: bool, value: AnyView| {
        view! {
            <div class:alarm=alarm>
                <dt>{name}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    let last = match bot.row.last_update {
        Some(at) => view! { <Ago at now /> }.into_any(),
        None => "—".into_any(),
    };
    let lag = bot.lag_ms.map_or_else(|| t.bot_no_lag.to_owned(), |ms| duration(t, ms));
    let holder = match bot.lease_holder {
        Some(holder) => view! { <code>{holder}</code> }.into_any(),
        None => "—".into_any(),
    };
    let pending = match bot.pending {
        Some((count, at)) => view! { {group(count)} <span class="muted">" · "<Ago at now /></span> }.into_any(),
        None => view! { <span class="muted">{t.bot_pending_unknown}</span> }.into_any(),
    };
    view! {
        {is_telegram.then(|| fact(t.bot_lease, false, holder))}
        {fact(t.bot_last_update, false, last)}
        {fact(t.bot_lag, bot.lag_ms.is_some_and(|ms| ms > LATE_MS), lag.into_any())}
        {is_telegram.then(|| fact(t.bot_pending, false, pending))}
        {is_telegram.then(|| fact(t.bot_floods, bot.flood_waits > 0, group(bot.flood_waits).into_any()))}
    }
}

#[component]
fn NewBot(add: ServerAction<AddBot>) -> impl IntoView {
    let t = use_texts();
    let pending = add.pending();
    let added = move || {
        add.value().with(|value| {
            let bot = value.as_ref()?.as_ref().ok()?;
            let words = fill(t.bot_added, &[&bot.name]);
            Some(view! {
                <Saved>
                    <p>{words}</p>
                </Saved>
            })
        })
    };
    view! {
        <Card title=t.bot_new id="add">
            <ActionForm action=add attr:class="stack narrow">
                <SecretField label=t.bot_token name="token" hint=t.bot_token_hint />
                <fieldset class="radios">
                    <legend>{t.bot_mode}</legend>
                    <label>
                        <input type="radio" name="mode" value="polling" checked=true />
                        <span>
                            <b>{t.bot_polling}</b>
                            <span class="muted">{t.bot_polling_hint}</span>
                        </span>
                    </label>
                    <label>
                        <input type="radio" name="mode" value="webhook" />
                        <span>
                            <b>{t.bot_webhook}</b>
                            <span class="muted">{t.bot_webhook_hint}</span>
                        </span>
                    </label>
                </fieldset>
                <FormFailure error=failure(add) />
                {added}
                <Button look=Look::Main glyph=Glyph::Plus pending>
                    {t.bot_add}
                </Button>
            </ActionForm>
        </Card>
    }
}
