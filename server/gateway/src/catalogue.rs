//! What can be asked: providers with their keys, models with their prices, and the names under which they are offered.
//!
//! A picture that never changes; when the rows behind it do, [`crate::Gateway::replace`] takes another one.

use std::{collections::HashMap, fmt, sync::Arc};

use domain::{ModelId, ModelKind, Price, ProviderId, ProviderKeyId};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::{ByDetail, Demo, Model, Provider};

/// Which protocol a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    OpenAi,
    Anthropic,
    Demo,
}

/// One of a provider's keys.
#[derive(Clone, Debug)]
pub struct KeySpec {
    pub id: ProviderKeyId,
    pub secret: SecretString,
}

/// A server that models are asked at.
#[derive(Clone, Debug)]
pub struct ProviderSpec {
    pub id: ProviderId,
    /// For metrics and pages.
    pub name: String,
    pub kind: ProviderKind,
    /// Empty means the kind's own address.
    pub base_url: String,
    /// Taken in rotation; none for servers that want none.
    pub keys: Vec<KeySpec>,
    /// Sent along with every request; values may be secrets.
    pub headers: Vec<(String, SecretString)>,
    pub organisation: Option<String>,
    /// The address of an HTTP proxy, which may hold a password.
    pub proxy: Option<SecretString>,
    /// Requests at once, in this process.
    pub max_concurrent: Option<u32>,
    pub enabled: bool,
}

impl ProviderSpec {
    /// One without keys, headers and limits.
    pub fn named(id: ProviderId, name: &str, kind: ProviderKind, base_url: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            kind,
            base_url: base_url.to_owned(),
            keys: Vec::new(),
            headers: Vec::new(),
            organisation: None,
            proxy: None,
            max_concurrent: None,
            enabled: true,
        }
    }

    /// Whether connections of the one serve the other.
    pub(crate) fn same_connection(&self, other: &Self) -> bool {
        let headers = |spec: &Self| -> Vec<(String, String)> {
            let pair = |(name, value): &(String, SecretString)| (name.clone(), value.expose_secret().to_owned());
            spec.headers.iter().map(pair).collect()
        };
        let proxy = |spec: &Self| spec.proxy.as_ref().map(|proxy| proxy.expose_secret().to_owned());
        self.kind == other.kind
            && self.base_url == other.base_url
            && self.organisation == other.organisation
            && headers(self) == headers(other)
            && proxy(self) == proxy(other)
    }
}

/// A model of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    pub id: ModelId,
    pub provider: ProviderId,
    /// As the provider calls it.
    pub name: String,
    pub kind: ModelKind,
    pub context_tokens: u32,
    pub max_answer_tokens: u32,
    pub price: Price,
}

/// The dearer of the two in everything.
fn dearer(one: Price, other: Price) -> Price {
    Price {
        input: one.input.max(other.input),
        cached_input: one.cached_input.max(other.cached_input),
        output: one.output.max(other.output),
        reasoning: one.reasoning.max(other.reasoning),
        image: one.image.max(other.image),
        audio_input: one.audio_input.max(other.audio_input),
        audio_output: one.audio_output.max(other.audio_output),
    }
}

impl From<&Model> for Price {
    fn from(model: &Model) -> Self {
        Self {
            input: model.input_per_million,
            cached_input: model.cached_input_per_million,
            output: model.output_per_million,
            audio_input: model.input_per_million,
            audio_output: model.output_per_million,
            ..Self::default()
        }
    }
}

/// Where an alias leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub model: ModelId,
    /// Its share among the targets of its tier; 0 is asked only when the others failed.
    pub weight: u32,
}

/// A name under which models are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// Offered for choice; others answer only to whoever knows their name.
    pub shown: bool,
    /// Tried one after the other; within a tier the weights decide.
    pub tiers: Vec<Vec<Target>>,
}

/// What a call under an alias has to be reckoned with, whoever will answer it.
#[derive(Clone, Debug)]
pub struct Offer {
    pub model: Arc<Model>,
    /// In everything that of the dearest who may answer.
    pub price: Price,
    /// The most tokens of one picture, for whoever of them it is dearest.
    pub picture: ByDetail,
}

/// All that can be asked.
#[derive(Clone, Default)]
pub struct Catalogue {
    pub(crate) providers: Vec<ProviderSpec>,
    pub(crate) models: Vec<Arc<ModelSpec>>,
    pub(crate) aliases: Vec<Alias>,
    /// Providers that were made elsewhere: of the settings, or of a test.
    pub(crate) given: HashMap<ProviderId, Arc<dyn Provider>>,
    /// The name that stands for the default model while none is offered.
    pub(crate) fallback: Option<String>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("providers", &self.providers)
            .field("models", &self.models)
            .field("aliases", &self.aliases)
            .finish_non_exhaustive()
    }
}

/// The provider of the settings has no row.
const OF_SETTINGS: ProviderId = ProviderId(Uuid::nil());

impl Catalogue {
    /// Aliases are offered in this order, the first chat model that is shown being the default. Whatever leads nowhere (a model
    /// that is not there, a provider that is not enabled) is left out.
    pub fn new(providers: Vec<ProviderSpec>, models: Vec<ModelSpec>, aliases: Vec<Alias>) -> Self {
        Self {
            providers,
            models: models.into_iter().map(Arc::new).collect(),
            aliases,
            given: HashMap::new(),
            fallback: None,
        }
    }

    /// Under which name is asked, in vain, while no chat model is offered: so that a failure says which one is missing.
    #[must_use]
    pub fn with_fallback(mut self, name: &str) -> Self {
        self.fallback = Some(name.to_owned());
        self
    }

    /// The built-in demo and its names, behind those that there are.
    #[must_use]
    pub fn with_demo(mut self) -> Self {
        let demo = Self::from_settings(Arc::new(Demo::new()), Demo::models());
        self.providers.extend(demo.providers);
        self.models.extend(demo.models);
        self.aliases.extend(demo.aliases);
        self.given.extend(demo.given);
        self
    }

    /// One provider, and each model under its own name; an empty list means the built-in one.
    pub fn from_settings(provider: Arc<dyn Provider>, models: Vec<Model>) -> Self {
        let models = if models.is_empty() {
            crate::models_from(None)
        } else {
            models
        };
        let kind = if provider.name() == crate::demo::NAME {
            ProviderKind::Demo
        } else {
            ProviderKind::OpenAi
        };
        let spec = ProviderSpec::named(OF_SETTINGS, provider.name(), kind, "");
        let id = |at: usize| ModelId(Uuid::from_u128(at as u128 + 1));
        let specs = models.iter().enumerate().map(|(at, model)| ModelSpec {
            id: id(at),
            provider: OF_SETTINGS,
            name: model.name.clone(),
            kind: ModelKind::Chat,
            context_tokens: model.context_tokens,
            max_answer_tokens: model.max_answer_tokens,
            price: Price::from(model),
        });
        let aliases = models.iter().enumerate().map(|(at, model)| Alias {
            name: model.name.clone(),
            shown: true,
            tiers: vec![vec![Target {
                model: id(at),
                weight: 1,
            }]],
        });
        let mut catalogue = Self::new(vec![spec], specs.collect(), aliases.collect());
        catalogue.given.insert(OF_SETTINGS, provider);
        catalogue
    }

    /// No more requests at once than this to each provider that has no limit of its own. Whoever finds no place waits for one,
    /// as long as for a first token.
    #[must_use]
    pub fn with_concurrency(mut self, most: usize) -> Self {
        for provider in &mut self.providers {
            provider
                .max_concurrent
                .get_or_insert(u32::try_from(most).unwrap_or(u32::MAX));
        }
        self
    }

    /// The alias as one model: sizes that fit whichever target of the first tier is taken, and no price that is too low.
    pub(crate) fn view(name: &str, tiers: &[Vec<Arc<ModelSpec>>]) -> Option<Model> {
        let first = tiers.iter().find(|tier| !tier.is_empty())?;
        let price = Self::dearest(tiers)?;
        Some(Model {
            name: name.to_owned(),
            context_tokens: first.iter().map(|model| model.context_tokens).min()?,
            max_answer_tokens: first.iter().map(|model| model.max_answer_tokens).min()?,
            input_per_million: price.input,
            output_per_million: price.output.max(price.reasoning.unwrap_or_default()),
            cached_input_per_million: price.cached_input,
        })
    }

    pub(crate) fn dearest(tiers: &[Vec<Arc<ModelSpec>>]) -> Option<Price> {
        let prices = tiers.iter().flatten().map(|model| model.price);
        prices.reduce(dearer)
    }
}

#[cfg(test)]
mod tests {
    use domain::Money;

    use super::*;
    use crate::Usage;

    #[test]
    fn each_kind_of_usage_has_its_price() {
        let dollars = |text: &str| text.parse::<Money>().unwrap();
        let price = Price {
            input: dollars("1"),
            cached_input: dollars("0.1"),
            output: dollars("2"),
            reasoning: Some(dollars("3")),
            image: dollars("0.04"),
            audio_input: dollars("6"),
            audio_output: dollars("12"),
        };
        let usage = Usage {
            prompt_tokens: 100,
            cached_tokens: 10,
            audio_input_tokens: 20,
            completion_tokens: 50,
            reasoning_tokens: 5,
            audio_output_tokens: 15,
            images: 2,
        };
        let nanos = 70 * 1000 + 10 * 100 + 20 * 6000 + 30 * 2000 + 5 * 3000 + 15 * 12_000 + 2 * 40_000_000;
        assert_eq!(usage.cost(&price).nanos(), nanos);
        let plain = Price {
            reasoning: None,
            ..price
        };
        assert_eq!(usage.cost(&plain).nanos(), nanos - 5 * 1000);
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut spec = ProviderSpec::named(ProviderId(Uuid::nil()), "p", ProviderKind::OpenAi, "");
        spec.keys.push(KeySpec {
            id: ProviderKeyId(Uuid::nil()),
            secret: "sk-1".into(),
        });
        spec.headers.push(("x-key".into(), "sk-2".into()));
        spec.proxy = Some("http://u:sk-3@p".into());
        let shown = format!("{:?}", Catalogue::new(vec![spec], Vec::new(), Vec::new()));
        assert!(shown.contains("x-key") && !shown.contains("sk-"), "{shown}");
    }
}
