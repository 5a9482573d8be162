//! Providers, models, prices and names.

use domain::{
    ModelId, Permission, ProviderId, ProviderKeyId,
    views::models::{Change, ModelBoard, Tested},
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};
use serde::{Deserialize, Serialize};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListModels::PATH, Some(Permission::ReadModels)),
    (LastChange::PATH, Some(Permission::ReadModels)),
    (SaveProvider::PATH, Some(Permission::WriteModels)),
    (RemoveProvider::PATH, Some(Permission::WriteModels)),
    (AddKey::PATH, Some(Permission::WriteSecrets)),
    (RemoveKey::PATH, Some(Permission::WriteSecrets)),
    (SaveModel::PATH, Some(Permission::WriteModels)),
    (RemoveModel::PATH, Some(Permission::WriteModels)),
    (TestProvider::PATH, Some(Permission::WriteModels)),
    (SaveAlias::PATH, Some(Permission::WriteModels)),
    (RaiseAlias::PATH, Some(Permission::WriteModels)),
    (RaiseTarget::PATH, Some(Permission::WriteModels)),
    (RemoveAlias::PATH, Some(Permission::WriteModels)),
];

/// Where a plain form goes that does not say what it has changed: what another one said stands in the address it came from.
#[cfg(feature = "ssr")]
const PAGE: &str = "/models";

/// A provider as typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProviderFields {
    pub name: String,
    pub kind: String,
    pub base_url: String,
    #[serde(default)]
    pub organisation: String,
    #[serde(default)]
    pub max_concurrent: String,
    /// A box that is not ticked is not sent.
    #[serde(default)]
    pub enabled: Option<String>,
    #[serde(default)]
    pub proxy: String,
    #[serde(default)]
    pub headers: String,
    /// Ticked: an empty proxy or list of headers takes away what is there.
    #[serde(default)]
    pub replace_secrets: Option<String>,
    /// Of a new provider.
    #[serde(default)]
    pub key: String,
}

/// A model as typed; prices are dollars per million tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelFields {
    pub name: String,
    pub kind: String,
    pub context_tokens: String,
    pub max_answer_tokens: String,
    #[serde(default)]
    pub enabled: Option<String>,
    #[serde(default)]
    pub input: String,
    #[serde(default)]
    pub cached_input: String,
    #[serde(default)]
    pub output: String,
    #[serde(default)]
    pub reasoning: String,
    #[serde(default)]
    pub image: String,
    #[serde(default)]
    pub audio_input: String,
    #[serde(default)]
    pub audio_output: String,
}

/// One model behind a name as typed; an empty tier leaves it out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetFields {
    pub model: ModelId,
    #[serde(default)]
    pub tier: String,
    #[serde(default)]
    pub weight: String,
}

#[server(prefix = "/api/fn", endpoint = "models/list", input = GetUrl)]
pub async fn list_models() -> Answer<ModelBoard> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadModels).await?;
    Ok(ssr::services()?.models().board(&actor).await?)
}

/// What a plain form has saved, by what stands in the address then.
#[server(prefix = "/api/fn", endpoint = "models/last-change", input = GetUrl)]
pub async fn last_change(saved: String) -> Answer<Option<Change>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadModels).await?;
    Ok(ssr::services()?.models().last_change(&actor, &saved).await?)
}

/// Without `id` a new one, with its first key.
#[server(prefix = "/api/fn", endpoint = "models/provider")]
pub async fn save_provider(id: Option<ProviderId>, fields: ProviderFields) -> Answer<Change> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    let (form, key) = typed::provider(fields)?;
    let saved = ssr::services()?.models().save_provider(&actor, id, form, key).await?;
    Ok(typed::told("provider", saved))
}

#[server(prefix = "/api/fn", endpoint = "models/provider/remove")]
pub async fn remove_provider(id: ProviderId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    ssr::services()?.models().remove_provider(&actor, id).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(())
}

#[server(prefix = "/api/fn", endpoint = "models/key/add")]
pub async fn add_key(provider: ProviderId, key: String) -> Answer<ProviderId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteSecrets).await?;
    ssr::services()?.models().add_key(&actor, provider, key.into()).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(provider)
}

#[server(prefix = "/api/fn", endpoint = "models/key/remove")]
pub async fn remove_key(id: ProviderKeyId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteSecrets).await?;
    ssr::services()?.models().remove_key(&actor, id).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(())
}

#[server(prefix = "/api/fn", endpoint = "models/model")]
pub async fn save_model(provider: ProviderId, id: Option<ModelId>, fields: ModelFields) -> Answer<Change> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    let models = ssr::services()?.models();
    let saved = models.save_model(&actor, provider, id, typed::model(fields)?).await?;
    Ok(typed::told("model", saved))
}

#[server(prefix = "/api/fn", endpoint = "models/model/remove")]
pub async fn remove_model(id: ModelId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    ssr::services()?.models().remove_model(&actor, id).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(())
}

/// Of one of its models, or as such.
#[server(prefix = "/api/fn", endpoint = "models/test")]
pub async fn test_provider(provider: ProviderId, model: Option<ModelId>) -> Answer<Tested> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    Ok(ssr::services()?.models().test(&actor, provider, model).await?)
}

#[server(prefix = "/api/fn", endpoint = "models/alias")]
pub async fn save_alias(
    name: String,
    #[server(default)] shown: Option<String>,
    #[server(default)] targets: Vec<TargetFields>,
) -> Answer<Change> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    let form = typed::alias(name, shown.is_some(), targets)?;
    let saved = ssr::services()?.models().save_alias(&actor, form).await?;
    Ok(typed::told("alias", saved))
}

#[server(prefix = "/api/fn", endpoint = "models/alias/raise")]
pub async fn raise_alias(name: String) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    ssr::services()?.models().raise_alias(&actor, &name).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(())
}

/// One place earlier in what is asked under a name.
#[server(prefix = "/api/fn", endpoint = "models/alias/raise-target")]
pub async fn raise_target(name: String, model: ModelId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    ssr::services()?.models().raise_target(&actor, &name, model).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(())
}

#[server(prefix = "/api/fn", endpoint = "models/alias/remove")]
pub async fn remove_alias(name: String) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteModels).await?;
    ssr::services()?.models().remove_alias(&actor, &name).await?;
    ssr::redirect_plain_form(PAGE);
    Ok(())
}

/// From what was typed to what services take.
#[cfg(feature = "ssr")]
mod typed {
    use std::{fmt::Display, str::FromStr};

    use domain::{Invalid, Money, Price, views::models::Change};
    use leptos_router::location::Url;
    use services::models::{AliasForm, ModelForm, ProviderForm, Saved};

    use super::{ModelFields, ProviderFields, TargetFields};
    use crate::ssr;

    /// What was saved: as the answer, and for a plain form by the address to which it goes.
    pub(super) fn told(kind: &str, saved: Saved<impl Display>) -> Change {
        ssr::redirect_plain_form(&href(kind, &saved));
        saved.change
    }

    fn href(kind: &str, Saved { id, change }: &Saved<impl Display>) -> String {
        if change.before.is_none() && change.after.is_none() {
            return "/models?saved=nothing".to_owned();
        }
        format!("/models?saved={kind}:{}", Url::escape(&id.to_string()))
    }

    pub(super) fn provider(fields: ProviderFields) -> Result<(ProviderForm, Option<secrecy::SecretString>), Invalid> {
        let replaces = fields.replace_secrets.is_some();
        let secret = |text: String| (replaces || !text.trim().is_empty()).then(|| text.into());
        let form = ProviderForm {
            name: fields.name,
            kind: fields.kind.parse()?,
            base_url: fields.base_url,
            organisation: Some(fields.organisation),
            max_concurrent: optional(&fields.max_concurrent, Invalid("a whole number from 1, or nothing").0)?,
            enabled: fields.enabled.is_some(),
            proxy: secret(fields.proxy),
            headers: secret(fields.headers),
        };
        Ok((form, (!fields.key.trim().is_empty()).then(|| fields.key.into())))
    }

    pub(super) fn model(fields: ModelFields) -> Result<ModelForm, Invalid> {
        let tokens = |text: &str| {
            let expected = Invalid("a whole number of tokens from 1");
            optional(text, expected.0)?.ok_or(expected)
        };
        let dollars = |text: &str| -> Result<Money, Invalid> {
            match text.trim() {
                "" => Ok(Money::ZERO),
                text => text.parse(),
            }
        };
        let input = dollars(&fields.input)?;
        let or_input = |text: &str| {
            if text.trim().is_empty() {
                Ok(input)
            } else {
                dollars(text)
            }
        };
        Ok(ModelForm {
            name: fields.name,
            kind: fields.kind.parse()?,
            context_tokens: tokens(&fields.context_tokens)?,
            max_answer_tokens: tokens(&fields.max_answer_tokens)?,
            enabled: fields.enabled.is_some(),
            price: Price {
                input,
                cached_input: or_input(&fields.cached_input)?,
                output: dollars(&fields.output)?,
                reasoning: match fields.reasoning.trim() {
                    "" => None,
                    text => Some(text.parse()?),
                },
                image: dollars(&fields.image)?,
                audio_input: or_input(&fields.audio_input)?,
                audio_output: dollars(&fields.audio_output)?,
            },
        })
    }

    pub(super) fn alias(name: String, shown: bool, targets: Vec<TargetFields>) -> Result<AliasForm, Invalid> {
        let place = Invalid("a place from 1 to 9, or nothing");
        let share = Invalid("a share from 1 to 1000");
        let targets = targets
            .into_iter()
            .filter_map(|target| {
                let tier = optional::<i16>(&target.tier, place.0).transpose()?;
                Some(tier.and_then(|tier| {
                    if !(1..=9).contains(&tier) {
                        return Err(place.clone());
                    }
                    let weight = optional(&target.weight, share.0)?.unwrap_or(1);
                    if !(1..=1000).contains(&weight) {
                        return Err(share.clone());
                    }
                    Ok((tier - 1, target.model, weight))
                }))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(AliasForm { name, shown, targets })
    }

    fn optional<T: FromStr>(text: &str, expected: &'static str) -> Result<Option<T>, Invalid> {
        match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Invalid(expected)),
        }
    }

    #[cfg(test)]
    mod tests {
        use domain::ModelId;

        use super::*;

        #[test]
        fn a_plain_form_goes_where_the_page_says_what_was_saved() {
            let saved = |after: Option<serde_json::Value>| Saved {
                id: "my model",
                change: Change {
                    name: "my model".to_owned(),
                    before: None,
                    after,
                },
            };
            assert_eq!(href("alias", &saved(None)), "/models?saved=nothing");
            let changed = saved(Some(serde_json::json!({ "shown": true })));
            assert_eq!(href("alias", &changed), "/models?saved=alias:my%20model");
        }

        #[test]
        fn a_name_leads_where_a_place_was_typed() {
            let target = |tier: &str, weight: &str| TargetFields {
                model: ModelId(uuid::Uuid::nil()),
                tier: tier.into(),
                weight: weight.into(),
            };
            let form = alias(
                "x".into(),
                true,
                vec![target("", "7"), target("2", ""), target(" 1 ", "3")],
            )
            .unwrap();
            let places: Vec<_> = form.targets.iter().map(|(tier, _, weight)| (*tier, *weight)).collect();
            assert_eq!(places, [(1, 1), (0, 3)]);
            for (tier, weight) in [("0", "1"), ("10", "1"), ("a", "1"), ("1", "0"), ("1", "x")] {
                assert!(
                    alias("x".into(), true, vec![target(tier, weight)]).is_err(),
                    "{tier} {weight}"
                );
            }
        }

        #[test]
        fn prices_left_empty_are_those_of_input_or_nothing() {
            let fields = ModelFields {
                name: "m".into(),
                kind: "chat".into(),
                context_tokens: "8000".into(),
                max_answer_tokens: "1000".into(),
                enabled: None,
                input: "0.15".into(),
                cached_input: String::new(),
                output: "0,60".into(),
                reasoning: String::new(),
                image: String::new(),
                audio_input: String::new(),
                audio_output: String::new(),
            };
            let form = model(fields.clone()).unwrap();
            assert_eq!(
                (form.price.cached_input, form.price.reasoning),
                (form.price.input, None)
            );
            assert!(!form.enabled);
            assert!(
                model(ModelFields {
                    context_tokens: String::new(),
                    ..fields
                })
                .is_err()
            );
        }
    }
}
