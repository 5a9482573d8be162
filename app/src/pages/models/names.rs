//! The names under which people and programs ask, in the order in which they are offered.

use domain::{
    LimitOwner, ModelId,
    views::models::{AliasRow, ModelBoard, ModelRow},
};
use leptos::prelude::*;

use super::Forms;
use crate::{
    components::{Badge, Button, Card, Confirm, Field, Glyph, Icon, LimitLine, Look, Tone},
    i18n::{fill, use_texts},
    pages::plans::{edit_href, owner_words},
};

#[component]
pub(super) fn Names(board: ModelBoard, writes: bool, limits: bool, forms: Forms) -> impl IntoView {
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
            view! { <Name alias models=models.clone() is_first={at == 0} is_default={Some(at) == default} writes limits forms /> }
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
    /// Whoever looks may set them.
    limits: bool,
    forms: Forms,
) -> impl IntoView {
    let t = use_texts();
    let name = alias.name.clone();
    let bars = alias
        .limits
        .iter()
        .cloned()
        .map(|limit| view! { <LimitLine limit /> })
        .collect::<Vec<_>>();
    let limits = limits.then(|| {
        let owner = LimitOwner::Model(name.clone());
        let label = fill(t.limits_change_label, &[&owner_words(t, &owner, &name)]);
        view! { <a class="button ghost" href=edit_href(&owner) aria-label=label>{t.limits_title}</a> }
    });
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
                    // Those that share the first place can be told apart as well.
                    let raise = (writes && (at > 0 || shared)).then(|| {
                        let label = fill(t.target_raise_label, &[&target.name, &target.provider, &alias.name]);
                        view! { <Earlier name=alias.name.clone() model=target.model label forms /> }
                    });
                    view! {
                        <span class="route-target">
                            {raise}
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
            <div class="route-way">{way}</div>
            {(!bars.is_empty()).then(|| view! { <ul class="limits">{bars}</ul> })}
            <div class="card-actions">{raise} {limits} {remove}</div>
            {edit}
        </li>
    }
}

/// Has a model asked one place earlier.
#[component]
fn Earlier(name: String, model: ModelId, label: String, forms: Forms) -> impl IntoView {
    view! {
        <ActionForm action=forms.raise_target>
            <input type="hidden" name="name" value=name />
            <input type="hidden" name="model" value=model.to_string() />
            <button
                type="submit"
                class="button ghost small icon-only"
                aria-label=label.clone()
                title=label
                disabled=move || forms.raise_target.pending().get()
            >
                <Icon glyph=Glyph::Earlier />
            </button>
        </ActionForm>
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
