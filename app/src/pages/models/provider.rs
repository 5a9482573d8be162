//! One provider: whether it answers, its keys, its models and what they cost.

use chrono::{DateTime, Utc};
use domain::{
    ModelId, ModelKind, Money, Price, ProviderId, ProviderKind,
    views::models::{BreakerState, FailureRow, KeyRow, KeyTested, ModelRow, PriceRow, ProviderCard, Tested, TestedBy},
};
use leptos::prelude::*;

use super::{Forms, kind_words};
use crate::{
    components::{Ago, Badge, Button, Card, Choice, Confirm, Field, Glyph, Look, Notice, Saved, Time, TimeStyle, Tone},
    i18n::{Texts, dollars, duration, fill, group, use_texts},
};

#[component]
pub(super) fn Provider(
    provider: ProviderCard,
    now: DateTime<Utc>,
    writes: bool,
    secrets: bool,
    forms: Forms,
) -> impl IntoView {
    let t = use_texts();
    let id = provider.id;
    let heading = format!("provider-{id}");
    let ours = provider.from_settings;
    let kind = match provider.kind {
        ProviderKind::OpenAi => t.provider_openai,
        ProviderKind::Anthropic => t.provider_anthropic,
    };
    let keys = provider
        .keys
        .clone()
        .into_iter()
        .map(|key| view! { <Key key_row=key now removes={secrets && !ours} forms /> })
        .collect_view();
    let no_key = provider.keys.is_empty();
    let models = provider
        .models
        .clone()
        .into_iter()
        .map(|model| view! { <Model model provider=id ours writes forms /> })
        .collect_view();
    let no_model = provider.models.is_empty();
    let headers = provider.headers.join(", ");
    let card = provider.clone();
    view! {
        <section class="card" aria-labelledby=heading>
            <header class="card-head">
                <div class="card-title">
                    <h3 id=heading.clone()>{provider.name.clone()}</h3>
                    <p class="muted">{kind}" · "<code>{provider.base_url.clone()}</code></p>
                </div>
                {(!provider.is_sealed).then(|| view! { <State enabled=provider.enabled state=provider.state now /> })}
            </header>
            {ours.then(|| view! { <p class="hint">{t.provider_from_settings}</p> })}
            {provider
                .is_sealed
                .then(|| {
                    view! {
                        <Notice tone=Tone::Bad glyph=Glyph::Warning>
                            <p>{t.provider_sealed}</p>
                        </Notice>
                    }
                })}
            {provider.last_failure.clone().map(|failure| view! { <LastFailure failure now /> })}
            <dl class="facts">
                <div>
                    <dt>{t.provider_running}</dt>
                    <dd>
                        {group(provider.running.into())}
                        {provider.max_concurrent.map(|most| format!(" / {}", group(most.into())))}
                    </dd>
                </div>
                {(!headers.is_empty())
                    .then(|| {
                        view! {
                            <div>
                                <dt>{t.provider_headers}</dt>
                                <dd><code>{headers}</code></dd>
                            </div>
                        }
                    })}
                {provider
                    .has_proxy
                    .then(|| {
                        view! {
                            <div>
                                <dt>{t.provider_proxy}</dt>
                                <dd>{t.provider_proxy_set}</dd>
                            </div>
                        }
                    })}
                <div>
                    <dt>{t.provider_keys}</dt>
                    <dd class="keys">{keys} {no_key.then(|| view! { <span class="muted">{t.provider_no_key}</span> })}</dd>
                </div>
            </dl>
            {writes
                .then(|| {
                    view! {
                        <div class="card-actions">
                            <TestForm provider=id model=None name=provider.name.clone() words=t.provider_test forms />
                        </div>
                        <TestResult provider=id model=None forms />
                    }
                })}
            {no_model.then(|| view! { <p class="muted">{t.provider_no_model}</p> })}
            <ul class="models">{models}</ul>
            {(writes && !ours)
                .then(|| {
                    view! {
                        <details class="unfold">
                            <summary aria-label=fill(t.model_new_label, &[&card.name])>{t.model_new}</summary>
                            <ModelForm model=None provider=id ours=false forms />
                        </details>
                        {secrets.then(|| view! { <NewKey provider=id name=card.name.clone() forms /> })}
                        <details class="unfold">
                            <summary aria-label=fill(t.provider_edit_label, &[&card.name])>{t.provider_edit}</summary>
                            <ProviderForm provider=Some(card.clone()) secrets forms />
                            <Confirm open=t.remove glyph=Glyph::Stop danger=true>
                                <ActionForm action=forms.remove_provider attr:class="stack">
                                    <input type="hidden" name="id" value=id.to_string() />
                                    <p>{fill(t.provider_remove_hint, &[&card.name])}</p>
                                    <Button look=Look::Danger pending=forms.remove_provider.pending()>
                                        {t.remove}
                                    </Button>
                                </ActionForm>
                            </Confirm>
                        </details>
                    }
                })}
        </section>
    }
}

#[component]
fn State(enabled: bool, state: BreakerState, now: DateTime<Utc>) -> impl IntoView {
    let t = use_texts();
    let until = match state {
        BreakerState::Open { until } if enabled => until.filter(|until| *until > now),
        _ => None,
    };
    let (tone, glyph, text) = match (enabled, state) {
        (false, _) => (Tone::Quiet, Glyph::Stop, t.breaker_off.to_owned()),
        (true, BreakerState::Closed) => (Tone::Good, Glyph::Check, t.breaker_closed.to_owned()),
        (true, BreakerState::HalfOpen) => (Tone::Warn, Glyph::Clock, t.breaker_half.to_owned()),
        (true, BreakerState::Open { until: Some(until) }) if until > now => {
            let left = duration(t, (until - now).num_milliseconds());
            (Tone::Bad, Glyph::Warning, fill(t.breaker_open, &[&left]))
        }
        (true, BreakerState::Open { until: Some(_) }) => (Tone::Warn, Glyph::Clock, t.breaker_due.to_owned()),
        (true, BreakerState::Open { until: None }) => (Tone::Bad, Glyph::Warning, t.breaker_rests.to_owned()),
    };
    view! {
        <span class="key">
            <Badge tone glyph text />
            {until
                .map(|at| {
                    view! {
                        <span class="muted">{t.breaker_until}" "<Time at style=TimeStyle::Second /></span>
                    }
                })}
        </span>
    }
}

/// As a warning until it has answered again.
#[component]
fn LastFailure(failure: FailureRow, now: DateTime<Utc>) -> impl IntoView {
    let t = use_texts();
    let FailureRow {
        at,
        code,
        cause,
        is_over,
    } = failure;
    if is_over {
        view! { <p class="muted">{t.provider_failure_over}" "<Ago at now />": "{code}": "{cause}</p> }.into_any()
    } else {
        view! {
            <Notice tone=Tone::Warn glyph=Glyph::Warning>
                <p>{t.provider_last_failure}" "<Ago at now />": "{code}": "{cause}</p>
            </Notice>
        }
        .into_any()
    }
}

#[component]
fn TestForm(
    provider: ProviderId,
    model: Option<ModelId>,
    name: String,
    words: &'static str,
    forms: Forms,
) -> impl IntoView {
    let t = use_texts();
    view! {
        <ActionForm action=forms.test>
            <input type="hidden" name="provider" value=provider.to_string() />
            {model.map(|id| view! { <input type="hidden" name="model" value=id.to_string() /> })}
            <Button glyph=Glyph::Bolt pending=forms.test.pending() label=fill(t.model_test_label, &[&name])>
                {words}
            </Button>
        </ActionForm>
    }
}

/// What the last test has shown, if it was one of this.
#[component]
fn TestResult(provider: ProviderId, model: Option<ModelId>, forms: Forms) -> impl IntoView {
    move || {
        let tested = forms
            .test
            .value()
            .with(|value| value.as_ref().and_then(|result| result.as_ref().ok()).cloned());
        tested
            .filter(|tested| (tested.provider, tested.model) == (provider, model))
            .map(|tested| view! { <TestedKeys tested /> })
    }
}

#[component]
fn TestedKeys(tested: Tested) -> impl IntoView {
    let t = use_texts();
    let asked_for = match &tested.by {
        TestedBy::Token(name) => fill(t.tested_by_token, &[name]),
        TestedBy::Embedding(name) => fill(t.tested_by_embedding, &[name]),
        TestedBy::Models => t.tested_by_models.to_owned(),
    };
    let keys = tested.keys.into_iter().map(|KeyTested { hint, ms, failure }| {
        let key = hint.map(|hint| view! { <code>{hint}</code>" " });
        match failure {
            None => view! { <Saved><p>{key}{fill(t.model_test_good, &[&duration(t, ms)])}</p></Saved> }.into_any(),
            Some(failure) => view! {
                <Notice tone=Tone::Bad glyph=Glyph::Warning>
                    <p>{key}{t.model_test_bad}" "{failure}</p>
                </Notice>
            }
            .into_any(),
        }
    });
    view! {
        <p class="muted">{asked_for}</p>
        {keys.collect_view()}
    }
}

#[component]
fn Key(key_row: KeyRow, now: DateTime<Utc>, removes: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let rests = key_row.state != BreakerState::Closed;
    let hint = key_row.hint.clone();
    view! {
        <span class="key">
            <code>{key_row.hint}</code>
            {rests.then(|| view! { <State enabled=true state=key_row.state now /> })}
            {removes
                .then(|| {
                    view! {
                        <Confirm open=t.remove glyph=Glyph::Stop>
                            <ActionForm action=forms.remove_key attr:class="stack">
                                <input type="hidden" name="id" value=key_row.id.to_string() />
                                <p>{fill(t.key_remove_hint, &[&hint])}</p>
                                <Button look=Look::Danger pending=forms.remove_key.pending()>
                                    {t.remove}
                                </Button>
                            </ActionForm>
                        </Confirm>
                    }
                })}
        </span>
    }
}

#[component]
fn NewKey(provider: ProviderId, name: String, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let (id, hint_id) = (format!("key-{provider}"), format!("key-hint-{provider}"));
    view! {
        <details class="unfold">
            <summary aria-label=fill(t.key_new_label, &[&name])>{t.key_new}</summary>
            <ActionForm action=forms.add_key attr:class="stack narrow">
                <input type="hidden" name="provider" value=provider.to_string() />
                <div class="field">
                    <label for=id.clone()>{t.key_label}</label>
                    <input
                        id=id
                        name="key"
                        type="password"
                        autocomplete="off"
                        spellcheck="false"
                        required=true
                        maxlength="500"
                        aria-describedby=hint_id.clone()
                    />
                    <p class="hint" id=hint_id>
                        {t.key_hint}
                    </p>
                </div>
                <Button pending=forms.add_key.pending()>{t.key_add}</Button>
            </ActionForm>
        </details>
    }
}

#[component]
fn Model(model: ModelRow, provider: ProviderId, ours: bool, writes: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let id = model.id;
    let name = model.name.clone();
    let prices = model.prices.clone();
    // Others cannot be asked for anything small: their provider is tested instead.
    let tests = writes && matches!(model.kind, ModelKind::Chat | ModelKind::Embedding);
    let price = price_words(t, &model.price);
    let sizes = [model.context_tokens, model.max_answer_tokens].map(|tokens| group(tokens.into()));
    let off = !model.enabled;
    let kind = kind_words(t, model.kind);
    let tested_name = name.clone();
    let test = tests.then(|| view! { <TestForm provider model=Some(id) name=tested_name words=t.model_test forms /> });
    let remove_hint = fill(t.model_remove_hint, &[&name]);
    let remove = (writes && !ours).then(|| {
        view! {
            <Confirm open=t.remove glyph=Glyph::Stop>
                <ActionForm action=forms.remove_model attr:class="stack">
                    <input type="hidden" name="id" value=id.to_string() />
                    <p>{remove_hint}</p>
                    <Button look=Look::Danger pending=forms.remove_model.pending()>
                        {t.remove}
                    </Button>
                </ActionForm>
            </Confirm>
        }
    });
    let edit_label = fill(t.model_edit_label, &[&name]);
    let edit = writes.then(|| {
        view! {
            <details class="unfold">
                <summary aria-label=edit_label>{t.model_edit}</summary>
                <ModelForm model=Some(model) provider ours forms />
            </details>
        }
    });
    view! {
        <li>
            <div class="route-head">
                <b>{name.clone()}</b>
                <span class="muted">{kind}</span>
                {off.then(|| view! { <Badge tone=Tone::Quiet glyph=Glyph::Stop text=t.breaker_off /> })}
            </div>
            <p class="muted">{price}" · "{fill(t.model_sizes, &[&sizes[0], &sizes[1]])}</p>
            <div class="card-actions">{test} {remove}</div>
            <TestResult provider model=Some(id) forms />
            <History prices name />
            {edit}
        </li>
    }
}

/// What the model has cost, and who has said so.
#[component]
fn History(prices: Vec<PriceRow>, name: String) -> impl IntoView {
    let t = use_texts();
    let rows = prices
        .into_iter()
        .map(|row| {
            view! {
                <li>
                    <Time at=row.since style=TimeStyle::Minute />
                    " "
                    {price_words(t, &row.price)}
                    <span class="muted">" "{row.set_by}</span>
                </li>
            }
        })
        .collect::<Vec<_>>();
    (!rows.is_empty()).then(|| {
        view! {
            <details class="unfold">
                <summary aria-label=fill(t.prices_label, &[&name])>{t.prices}</summary>
                <ul class="changes">{rows}</ul>
            </details>
        }
    })
}

/// Every price that is set, so that no two prices read the same. What is not named costs nothing, or as other input and output.
fn price_words(t: &Texts, price: &Price) -> String {
    if *price == Price::default() {
        return t.price_free.to_owned();
    }
    let named = |words: &str, price: Money, is_set: bool| is_set.then(|| fill(words, &[&dollars(price)]));
    let reasoning = price.reasoning.unwrap_or_default();
    let tokens: Vec<String> = [
        named(t.price_in, price.input, price.input != Money::ZERO),
        named(t.price_cached_in, price.cached_input, price.cached_input != price.input),
        named(t.price_out, price.output, price.output != Money::ZERO),
        named(t.price_reasons, reasoning, price.reasoning.is_some()),
        named(t.price_hears, price.audio_input, price.audio_input != price.input),
        named(t.price_speaks, price.audio_output, price.audio_output != Money::ZERO),
    ]
    .into_iter()
    .flatten()
    .collect();
    let tokens = (!tokens.is_empty()).then(|| fill(t.price_per_million, &[&tokens.join(", ")]));
    let image = named(t.price_image, price.image, price.image != Money::ZERO);
    tokens.into_iter().chain(image).collect::<Vec<_>>().join("; ")
}

#[component]
fn ModelForm(model: Option<ModelRow>, provider: ProviderId, ours: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let known = model.is_some();
    let id = model
        .as_ref()
        .map_or_else(|| format!("new-{provider}"), |model| model.id.to_string());
    let row = model.unwrap_or_else(|| ModelRow {
        id: ModelId(uuid::Uuid::nil()),
        name: String::new(),
        kind: ModelKind::Chat,
        context_tokens: 128_000,
        max_answer_tokens: 8192,
        enabled: true,
        price: Price::default(),
        prices: Vec::new(),
    });
    let kinds = ModelKind::ALL
        .into_iter()
        .map(|kind| (kind.name().to_owned(), kind_words(t, kind).to_owned()))
        .collect::<Vec<_>>();
    let price = move |label: &'static str, name: &'static str, value: Option<Money>, id: &str| {
        let value = value.map(dollars).unwrap_or_default();
        view! { <Field label name id=format!("{name}-{id}") value inputmode="decimal" autocomplete="off" max_length=20 /> }
    };
    let shown = move |money: Money| known.then_some(money);
    view! {
        <ActionForm action=forms.model attr:class="stack">
            <input type="hidden" name="provider" value=provider.to_string() />
            {known.then(|| view! { <input type="hidden" name="id" value=id.clone() /> })}
            {if ours {
                view! { <input type="hidden" name="fields[name]" value=row.name.clone() /> }.into_any()
            } else {
                view! {
                    <Field
                        label=t.model_name
                        name="fields[name]"
                        id=format!("model-name-{id}")
                        value=row.name.clone()
                        hint=t.model_name_hint
                        required=true
                        max_length=120
                        autocomplete="off"
                    />
                }
                    .into_any()
            }}
            <Choice label=t.model_kind name="fields[kind]" id=format!("kind-{id}") chosen=row.kind.name() options=kinds />
            <div class="field-grid">
                <Field
                    label=t.model_context
                    name="fields[context_tokens]"
                    id=format!("context-{id}")
                    value=row.context_tokens.to_string()
                    inputmode="numeric"
                    required=true
                />
                <Field
                    label=t.model_answer
                    name="fields[max_answer_tokens]"
                    id=format!("answer-{id}")
                    value=row.max_answer_tokens.to_string()
                    inputmode="numeric"
                    required=true
                />
                {price(t.price_input, "fields[input]", shown(row.price.input), &id)}
                {price(t.price_output, "fields[output]", shown(row.price.output), &id)}
                {price(t.price_cached, "fields[cached_input]", shown(row.price.cached_input), &id)}
                {price(t.price_reasoning, "fields[reasoning]", row.price.reasoning, &id)}
                {price(t.price_per_image, "fields[image]", shown(row.price.image), &id)}
                {price(t.price_audio_in, "fields[audio_input]", shown(row.price.audio_input), &id)}
                {price(t.price_audio_out, "fields[audio_output]", shown(row.price.audio_output), &id)}
            </div>
            <p class="hint">{t.price_hint}</p>
            <label class="check">
                <input type="checkbox" name="fields[enabled]" value="yes" checked=row.enabled />
                <span>{t.model_enabled}</span>
            </label>
            <Button look=Look::Main pending=forms.model.pending()>
                {t.save}
            </Button>
        </ActionForm>
    }
}

#[component]
fn ProviderForm(provider: Option<ProviderCard>, secrets: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let id = provider
        .as_ref()
        .map_or_else(|| "new".to_owned(), |provider| provider.id.to_string());
    let kind = provider.as_ref().map_or(ProviderKind::OpenAi, |provider| provider.kind);
    let kinds = vec![
        ("openai".to_owned(), t.provider_openai.to_owned()),
        ("anthropic".to_owned(), t.provider_anthropic.to_owned()),
    ];
    let (name, base_url, organisation, most) = provider.as_ref().map_or_else(Default::default, |provider| {
        (
            provider.name.clone(),
            provider.base_url.clone(),
            provider.organisation.clone().unwrap_or_default(),
            provider.max_concurrent.map(|most| most.to_string()).unwrap_or_default(),
        )
    });
    let enabled = provider.as_ref().is_none_or(|provider| provider.enabled);
    let has_secrets = provider
        .as_ref()
        .is_some_and(|provider| provider.has_proxy || !provider.headers.is_empty());
    let is_new = provider.is_none();
    let headers_id = format!("headers-{id}");
    let key_id = format!("first-key-{id}");
    view! {
        <ActionForm action=forms.provider attr:class="stack narrow">
            {(!is_new).then(|| view! { <input type="hidden" name="id" value=id.clone() /> })}
            <Field
                label=t.name
                name="fields[name]"
                id=format!("provider-name-{id}")
                value=name
                required=true
                max_length=40
                autocomplete="off"
            />
            <Choice label=t.provider_kind name="fields[kind]" id=format!("provider-kind-{id}") chosen=kind.name() options=kinds />
            <Field
                label=t.provider_url
                name="fields[base_url]"
                id=format!("url-{id}")
                value=base_url
                hint=t.provider_url_hint
                placeholder="https://api.openai.com/v1"
                required=true
                max_length=500
                autocomplete="off"
            />
            {is_new
                .then(|| {
                    view! {
                        <div class="field">
                            <label for=key_id.clone()>{t.key_label}</label>
                            <input id=key_id name="fields[key]" type="password" autocomplete="off" spellcheck="false" maxlength="500" />
                            <p class="hint">{t.key_first_hint}</p>
                        </div>
                    }
                })}
            <details class="unfold">
                <summary>{t.provider_more}</summary>
                <div class="stack">
                    <Field
                        label=t.provider_organisation
                        name="fields[organisation]"
                        id=format!("organisation-{id}")
                        value=organisation
                        max_length=100
                        autocomplete="off"
                    />
                    <Field
                        label=t.provider_most
                        name="fields[max_concurrent]"
                        id=format!("most-{id}")
                        value=most
                        placeholder=t.no_limit
                        inputmode="numeric"
                        autocomplete="off"
                    />
                    {secrets
                        .then(|| {
                            view! {
                                <Field
                                    label=t.provider_proxy
                                    name="fields[proxy]"
                                    id=format!("proxy-{id}")
                                    kind="password"
                                    placeholder="http://user:password@host:3128"
                                    max_length=500
                                    autocomplete="off"
                                />
                                <div class="field">
                                    <label for=headers_id.clone()>{t.provider_headers}</label>
                                    <textarea id=headers_id name="fields[headers]" rows="3" autocomplete="off" spellcheck="false" placeholder="X-Team: support"></textarea>
                                    <p class="hint">{t.provider_headers_hint}</p>
                                </div>
                                {has_secrets
                                    .then(|| {
                                        view! {
                                            <label class="check">
                                                <input type="checkbox" name="fields[replace_secrets]" value="yes" />
                                                <span>{t.provider_replace_secrets}</span>
                                            </label>
                                        }
                                    })}
                            }
                        })}
                </div>
            </details>
            <label class="check">
                <input
                    type="checkbox"
                    name="fields[enabled]"
                    value="yes"
                    checked=enabled
                />
                <span>{t.provider_enabled}</span>
            </label>
            <Button look=Look::Main pending=forms.provider.pending()>
                {t.save}
            </Button>
        </ActionForm>
    }
}

#[component]
pub(super) fn NewProvider(forms: Forms) -> impl IntoView {
    let t = use_texts();
    view! {
        <Card title=t.provider_new id="new-provider" note=t.provider_new_note>
            <ProviderForm provider=None secrets=true forms />
        </Card>
    }
}

#[cfg(test)]
mod tests {
    use domain::Lang;

    use super::*;
    use crate::i18n::texts;

    #[test]
    fn every_price_that_is_set_is_named() {
        let money = |text: &str| text.parse::<Money>().unwrap();
        let words = |price: &Price| price_words(texts(Lang::En), price);
        let plain = Price {
            input: money("0.25"),
            cached_input: money("0.25"),
            output: money("1"),
            audio_input: money("0.25"),
            ..Price::default()
        };
        assert_eq!(words(&plain), "$0.25 in, $1 out per million tokens");
        let changed = [
            Price {
                cached_input: money("0.1"),
                ..plain
            },
            Price {
                cached_input: Money::ZERO,
                ..plain
            },
            Price {
                reasoning: Some(money("2")),
                ..plain
            },
            Price {
                reasoning: Some(Money::ZERO),
                ..plain
            },
            Price {
                audio_input: money("6"),
                ..plain
            },
            Price {
                audio_output: money("12"),
                ..plain
            },
            Price {
                image: money("0.04"),
                ..plain
            },
            Price {
                output: Money::ZERO,
                ..plain
            },
        ];
        let mut all: Vec<String> = changed.iter().chain([&plain]).map(words).collect();
        assert_eq!(all[0], "$0.25 in, $0.1 cached, $1 out per million tokens");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), changed.len() + 1, "two prices read the same: {all:?}");
        let sound = Price {
            audio_input: money("6"),
            audio_output: money("12"),
            ..Price::default()
        };
        assert_eq!(words(&sound), "$6 audio in, $12 audio out per million tokens");
        let pictures = Price {
            image: money("0.04"),
            ..Price::default()
        };
        assert_eq!(words(&pictures), "$0.04 an image");
        assert_eq!(words(&Price::default()), "no price set");
        assert_eq!(
            price_words(texts(Lang::Ru), &changed[0]),
            "$0.25 вход, $0.1 из кэша, $1 выход за миллион токенов"
        );
    }
}
