//! The names under which people and programs ask, in the order in which they are offered.

use domain::views::models::{AliasRow, ModelBoard, ModelRow};
use leptos::prelude::*;

use super::Forms;
use crate::{
    components::{Badge, Button, Card, Confirm, Field, Glyph, Look, Tone},
    i18n::{fill, use_texts},
};

#[component]
pub(super) fn Names(board: ModelBoard, writes: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let models: Vec<(String, ModelRow)> = board
        .providers
        .iter()
        .flat_map(|provider| {
            provider
                .models
                .iter()
                .map(|model| (provider.name.clone(), model.clone()))
        })
        .collect();
    let default = board.aliases.iter().position(|alias| alias.shown);
    let rows = board
        .aliases
        .into_iter()
        .enumerate()
        .map(|(at, alias)| {
            view! { <Name alias models=models.clone() is_first={at == 0} is_default={Some(at) == default} writes forms /> }
        })
        .collect_view();
    view! {
        <Card title=t.names id="names" note=t.names_note>
            <ol class="routes">{rows}</ol>
            {writes
                .then(|| {
                    view! {
                        <details class="unfold">
                            <summary>{t.name_new}</summary>
                            <Form alias=None models forms />
                        </details>
                    }
                })}
        </Card>
    }
}

#[component]
fn Name(
    alias: AliasRow,
    models: Vec<(String, ModelRow)>,
    is_first: bool,
    is_default: bool,
    writes: bool,
    forms: Forms,
) -> impl IntoView {
    let t = use_texts();
    let name = alias.name.clone();
    let last = alias.tiers.len().saturating_sub(1);
    let way = alias
        .tiers
        .iter()
        .enumerate()
        .map(|(at, tier)| {
            let shared = tier.len() > 1;
            let targets = tier
                .iter()
                .map(|target| {
                    let weight = if shared {
                        format!(" ×{}", target.weight)
                    } else {
                        String::new()
                    };
                    view! {
                        <span class="route-target">
                            <b>{target.name.clone()}</b>
                            <span class="muted">{format!(" {}{weight}", target.provider)}</span>
                        </span>
                    }
                })
                .collect_view();
            view! {
                <span class="route-tier">{targets}</span>
                {(at < last).then(|| view! { <span class="muted" aria-label=t.name_then>" → "</span> })}
            }
        })
        .collect_view();
    let nowhere = alias.tiers.is_empty();
    let hidden = !alias.shown;
    let (raised, raise_label) = (name.clone(), fill(t.name_raise_label, &[&name]));
    let raise = (writes && !is_first).then(|| {
        view! {
            <ActionForm action=forms.raise>
                <input type="hidden" name="name" value=raised />
                <Button look=Look::Ghost pending=forms.raise.pending() label=raise_label>
                    {t.name_raise}
                </Button>
            </ActionForm>
        }
    });
    let remove_hint = fill(t.name_remove_hint, &[&name]);
    let removed = name.clone();
    let remove = writes.then(|| {
        view! {
            <Confirm open=t.remove glyph=Glyph::Stop>
                <ActionForm action=forms.remove_alias attr:class="stack">
                    <input type="hidden" name="name" value=removed />
                    <p>{remove_hint}</p>
                    <Button look=Look::Danger pending=forms.remove_alias.pending()>
                        {t.remove}
                    </Button>
                </ActionForm>
            </Confirm>
        }
    });
    let edit_label = fill(t.name_edit_label, &[&name]);
    let edit = writes.then(|| {
        view! {
            <details class="unfold">
                <summary aria-label=edit_label>{t.name_edit}</summary>
                <Form alias=Some(alias) models forms />
            </details>
        }
    });
    view! {
        <li>
            <div class="route-head">
                <code>{name}</code>
                {is_default.then(|| view! { <Badge tone=Tone::Accent glyph=Glyph::Check text=t.name_default /> })}
                {hidden.then(|| view! { <Badge tone=Tone::Quiet glyph=Glyph::Eye text=t.name_hidden /> })}
                {nowhere.then(|| view! { <Badge tone=Tone::Bad glyph=Glyph::Warning text=t.name_nowhere /> })}
            </div>
            <p class="route-way">{way}</p>
            <div class="card-actions">{raise} {remove}</div>
            {edit}
        </li>
    }
}

/// Every model with its place: 1 is asked first, those with the same place share by weight, an empty place leaves it out.
#[component]
fn Form(alias: Option<AliasRow>, models: Vec<(String, ModelRow)>, forms: Forms) -> impl IntoView {
    let t = use_texts();
    let name = alias.as_ref().map(|alias| alias.name.clone());
    let id = name.clone().unwrap_or_else(|| "new".to_owned());
    let shown = alias.as_ref().is_none_or(|alias| alias.shown);
    let place = |model: &ModelRow| {
        alias.as_ref()?.tiers.iter().enumerate().find_map(|(at, tier)| {
            let target = tier.iter().find(|target| target.model == model.id)?;
            Some((at + 1, target.weight))
        })
    };
    let rows = models
        .iter()
        .enumerate()
        .map(|(at, (provider, model))| {
            let (tier, weight) = place(model).map_or_else(
                || (String::new(), "1".to_owned()),
                |(tier, weight)| (tier.to_string(), weight.to_string()),
            );
            let of = format!("{} {provider}", model.name);
            view! {
                <tr>
                    <th scope="row">
                        {model.name.clone()} <span class="muted">{format!(" {provider}")}</span>
                        <input type="hidden" name=format!("targets[{at}][model]") value=model.id.to_string() />
                    </th>
                    <td>
                        <input
                            class="tiny"
                            name=format!("targets[{at}][tier]")
                            value=tier
                            inputmode="numeric"
                            maxlength="1"
                            autocomplete="off"
                            aria-label=fill(t.target_place_label, &[&of])
                        />
                    </td>
                    <td>
                        <input
                            class="tiny"
                            name=format!("targets[{at}][weight]")
                            value=weight
                            inputmode="numeric"
                            maxlength="4"
                            autocomplete="off"
                            aria-label=fill(t.target_weight_label, &[&of])
                        />
                    </td>
                </tr>
            }
        })
        .collect_view();
    let head = match name {
        Some(name) => view! { <input type="hidden" name="name" value=name /> }.into_any(),
        None => {
            view! { <Field label=t.name_label name="name" id="alias-name" required=true max_length=120 autocomplete="off" /> }
                .into_any()
        }
    };
    view! {
        <ActionForm action=forms.alias attr:class="stack">
            {head}
            <label class="check">
                <input type="checkbox" name="shown" value="yes" checked=shown id=format!("shown-{id}") />
                <span>{t.name_shown}</span>
            </label>
            <div class="table-scroll">
                <table class="table plain-rows">
                    <thead>
                        <tr>
                            <th scope="col">{t.model}</th>
                            <th scope="col">{t.target_place}</th>
                            <th scope="col">{t.target_weight}</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
            <p class="hint">{t.target_hint}</p>
            <Button look=Look::Main pending=forms.alias.pending()>
                {t.save}
            </Button>
        </ActionForm>
    }
}
