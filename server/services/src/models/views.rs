//! The catalogue as the page of models shows it.

use chrono::{DateTime, Utc};
use domain::{
    ModelId, Scope,
    views::{
        LimitBar,
        models::{
            self as views, AliasRow, BreakerState, FailureRow, KeyRow, ModelBoard, ModelRow, ProviderCard, TargetRow,
        },
    },
};
use gateway::LastFailure;
use repositories::catalogue::{Alias, Catalogue, PriceRow};
use serde_json::{Value, json};

use super::picture;
use crate::Services;

/// `prices`: those each model has had. `bars`: the limits of names.
pub(super) fn board(
    services: &Services,
    rows: Catalogue,
    prices: &[(ModelId, PriceRow)],
    bars: &[(Scope, String, LimitBar)],
    now: DateTime<Utc>,
) -> ModelBoard {
    let states = services.gateway.states();
    let providers = rows
        .providers
        .iter()
        .map(|row| {
            let seen = states.iter().find(|state| state.id == row.id);
            // Names alone: values are secrets. What cannot be opened is said in the log, and shown as none.
            let (proxy, headers) = picture::secrets(&services.keys, row).unwrap_or_default();
            let headers = headers
                .and_then(|lines| picture::header_lines(&lines).ok())
                .unwrap_or_default();
            let keys = rows.keys.iter().filter(|key| key.provider == row.id).map(|key| {
                let state = seen.and_then(|seen| seen.keys.iter().find(|state| state.id == Some(key.id)));
                KeyRow {
                    id: key.id,
                    hint: key.hint.clone(),
                    state: state.map_or(BreakerState::Closed, |state| {
                        breaker(state.state, state.open_for.max(state.rests_for), now)
                    }),
                }
            });
            let models = rows
                .models
                .iter()
                .filter(|model| model.provider == row.id)
                .map(|model| ModelRow {
                    id: model.id,
                    name: model.name.clone(),
                    kind: model.kind,
                    context_tokens: model.context_tokens,
                    max_answer_tokens: model.max_answer_tokens,
                    enabled: model.enabled,
                    price: model.price,
                    prices: prices
                        .iter()
                        .filter(|(id, _)| *id == model.id)
                        .map(|(_, row)| views::PriceRow {
                            since: row.since,
                            price: row.price,
                            set_by: row.set_by.clone(),
                        })
                        .collect(),
                });
            ProviderCard {
                id: row.id,
                name: row.name.clone(),
                kind: row.kind,
                base_url: row.base_url.clone(),
                organisation: row.organisation.clone(),
                has_proxy: proxy.is_some(),
                headers: headers.into_iter().map(|(name, _)| name).collect(),
                max_concurrent: row.max_concurrent,
                enabled: row.enabled,
                from_settings: row.from_settings,
                is_sealed: picture::provider(&services.keys, row, &rows.keys).is_err(),
                state: seen.map_or(BreakerState::Closed, |seen| breaker(seen.state, seen.open_for, now)),
                running: seen.map_or(0, |seen| u32::try_from(seen.running).unwrap_or(u32::MAX)),
                last_failure: seen
                    .and_then(|seen| seen.last_failure.as_ref())
                    .map(|failure| failure_row(failure, now)),
                keys: keys.collect(),
                models: models.collect(),
            }
        })
        .collect();
    let aliases = rows
        .aliases
        .iter()
        .map(|alias| AliasRow {
            name: alias.name.clone(),
            shown: alias.shown,
            tiers: tiers(alias, &rows),
            limits: bars
                .iter()
                .filter(|(_, subject, _)| *subject == alias.name)
                .map(|(.., bar)| bar.clone())
                .collect(),
        })
        .collect();
    ModelBoard {
        now,
        providers,
        aliases,
        is_demo: services.gateway.is_demo(),
        is_away: services.gateway.model(&services.gateway.default_model().name).is_none(),
    }
}

fn failure_row(failure: &LastFailure, now: DateTime<Utc>) -> FailureRow {
    FailureRow {
        at: now - chrono::TimeDelta::from_std(failure.ago).unwrap_or_default(),
        code: failure.code.as_str().to_owned(),
        cause: failure.cause.clone(),
        is_over: failure.is_over,
    }
}

/// `rest`: for how long it is left alone yet.
fn breaker(state: gateway::BreakerState, rest: Option<std::time::Duration>, now: DateTime<Utc>) -> BreakerState {
    let until = |time: std::time::Duration| now + chrono::TimeDelta::from_std(time).unwrap_or_default();
    match (state, rest) {
        (gateway::BreakerState::HalfOpen, _) => BreakerState::HalfOpen,
        (gateway::BreakerState::Open, rest) => BreakerState::Open { until: rest.map(until) },
        (gateway::BreakerState::Closed, Some(rest)) => BreakerState::Open {
            until: Some(until(rest)),
        },
        (gateway::BreakerState::Closed, None) => BreakerState::Closed,
    }
}

fn tiers(alias: &Alias, rows: &Catalogue) -> Vec<Vec<TargetRow>> {
    let mut tiers: Vec<(i16, Vec<TargetRow>)> = Vec::new();
    for route in rows.routes.iter().filter(|route| route.alias == alias.name) {
        let Some(model) = rows.models.iter().find(|model| model.id == route.model) else {
            continue;
        };
        let provider = rows.providers.iter().find(|provider| provider.id == model.provider);
        let target = TargetRow {
            model: model.id,
            name: model.name.clone(),
            provider: provider.map(|provider| provider.name.clone()).unwrap_or_default(),
            weight: route.weight,
        };
        match tiers.last_mut().filter(|(tier, _)| *tier == route.tier) {
            Some((_, targets)) => targets.push(target),
            None => tiers.push((route.tier, vec![target])),
        }
    }
    tiers.into_iter().map(|(_, targets)| targets).collect()
}

/// For the audit trail: `openai/gpt-4o ×3, azure/gpt-4o ×1 → deepseek/deepseek-chat`.
pub(super) fn shown_alias(alias: &Alias, rows: &Catalogue) -> Value {
    let tiers: Vec<String> = tiers(alias, rows)
        .into_iter()
        .map(|tier| {
            let targets = tier.iter().map(|target| {
                let weight = if tier.len() > 1 {
                    format!(" ×{}", target.weight)
                } else {
                    String::new()
                };
                format!("{}/{}{weight}", target.provider, target.name)
            });
            targets.collect::<Vec<_>>().join(", ")
        })
        .collect();
    json!({ "name": alias.name, "shown": alias.shown, "leads_to": tiers.join(" → ") })
}
