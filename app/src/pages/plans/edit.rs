//! The limits of one owner: what is used of them, a form that shows what it would do before it is saved, and how they came to be so.
//!
//! The form asks (its state becomes the address, so it works without script and a view can be sent); what it would do is shown below
//! it, with the button that saves just that. With script the same is shown while one types.

use std::{collections::BTreeMap, time::Duration};

use domain::{
    LimitKind, LimitOwner, Measure, Permission, PlanId,
    views::{
        LimitBar,
        limits::{LimitChanges, LimitSheet},
    },
};
use leptos::prelude::*;
use leptos_router::{hooks::use_query_map, params::ParamsMap};
use serde::{Deserialize, Serialize};

use super::{
    api::{BoostLimit, ResetLimit, SaveLimits, SavedLimits, SetPlanModels, preview_limits, show_limits},
    boost::{BoostForm, ResetForm},
    effect::{Changes, EffectCard},
    limit_words, owner_words,
};
use crate::{
    components::{Button, Card, Diff, FormFailure, LimitLine, PageHead, QueryForm, Saved, Skeleton, page},
    i18n::{fill, group, use_texts},
    pages::audit::AuditRows,
    state::{failure, not_found, successes, use_session},
};

/// How long nothing may be typed before the server is asked what it would do.
const PAUSE: Duration = Duration::from_millis(300);

/// The form as it is filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub owner: LimitOwner,
    /// As typed, by the name of the limit; empty is no limit.
    pub amounts: BTreeMap<String, String>,
    pub zone: String,
    pub soft: String,
}

impl Proposal {
    /// What the address proposes. Fields that are empty are left out of it.
    fn read(params: &ParamsMap) -> Option<Self> {
        params.get("preview")?;
        let get = |name: &str| params.get(name).unwrap_or_default();
        let amounts = LimitKind::ALL.iter().map(|kind| kind.name().to_owned());
        Some(Self {
            owner: params.get("owner")?.parse().ok()?,
            amounts: amounts.map(|name| (name.clone(), get(&name))).collect(),
            zone: get("zone"),
            soft: get("soft"),
        })
    }

    /// What the form begins with: what was proposed for this owner, and where that says nothing of the manner, what holds.
    fn begin(proposed: Option<Self>, sheet: &LimitSheet) -> Self {
        let now = Self::of(sheet);
        let Some(mut start) = proposed.filter(|proposed| proposed.owner == now.owner) else {
            return now;
        };
        for (said, holds) in [(&mut start.zone, now.zone), (&mut start.soft, now.soft)] {
            if said.trim().is_empty() {
                *said = holds;
            }
        }
        start
    }

    /// What holds now.
    fn of(sheet: &LimitSheet) -> Self {
        let amounts = sheet.limits.iter();
        // A user counts as the plan does.
        let (zone, soft) = match sheet.owner {
            LimitOwner::User(_) => (String::new(), String::new()),
            _ => (sheet.zone.clone(), sheet.soft_percent.to_string()),
        };
        Self {
            owner: sheet.owner.clone(),
            amounts: amounts
                .map(|(kind, amount)| (kind.name().to_owned(), kind.show_amount(*amount)))
                .collect(),
            zone,
            soft,
        }
    }
}

#[component]
pub fn EditLimitsPage() -> impl IntoView {
    let query = use_query_map();
    let owner = Memo::new(move |_| {
        let owner = query.with(|query| query.get("owner"));
        owner.and_then(|owner| owner.parse::<LimitOwner>().ok())
    });
    let is_saved = Memo::new(move |_| query.with(|query| query.get("saved").is_some()));
    let save = ServerAction::<SaveLimits>::new();
    let (boost, reset) = (ServerAction::<BoostLimit>::new(), ServerAction::<ResetLimit>::new());
    let models = ServerAction::<SetPlanModels>::new();
    let saves = successes(save);
    let model_saves = successes(models);
    let lifts = (successes(boost), successes(reset));
    let session = use_session();
    // What was typed since the page was opened, and the same once the typing has paused.
    let typed = RwSignal::new(None::<Proposal>);
    let paused = RwSignal::new(None::<Proposal>);
    Effect::new(move |_| {
        let now = typed.get();
        let settle = move || {
            if typed.get_untracked() == now {
                paused.set(now);
            }
        };
        set_timeout(settle, PAUSE);
    });
    let proposed = move || {
        let ours = |proposal: &Proposal| Some(&proposal.owner) == owner.get().as_ref();
        paused.get().filter(ours).or_else(|| query.with(Proposal::read))
    };
    let sheet = Resource::new(
        move || {
            (
                owner.get(),
                saves.get(),
                model_saves.get(),
                lifts.0.get(),
                lifts.1.get(),
            )
        },
        |(owner, ..)| async move { show_limits(owner.ok_or_else(not_found)?).await },
    );
    let effect = Resource::new(
        move || (proposed(), saves.get()),
        |(proposal, _)| async move {
            let proposal = proposal?;
            let Proposal {
                owner,
                amounts,
                zone,
                soft,
            } = proposal.clone();
            Some((proposal, preview_limits(owner, amounts, zone, soft).await))
        },
    );
    let shown_effect = move || {
        Suspend::new(async move {
            let writes = session.may().await.permits(Permission::WriteLimits);
            let (proposal, effect) = effect.await.filter(|_| writes)?;
            Some(view! { <EffectCard proposal effect typed save /> })
        })
    };
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let writes = session.may().await.permits(Permission::WriteLimits);
                let sheet = sheet.await;
                let start = typed.get_untracked().or_else(|| query.with_untracked(Proposal::read));
                let plainly_saved = is_saved.get_untracked();
                page(
                    sheet,
                    move |sheet| {
                        let start = Proposal::begin(start, &sheet);
                        view! {
                            <Head sheet=sheet.clone() />
                            <SavedNote sheet=sheet.clone() save plainly_saved />
                            {if writes {
                                view! { <Form sheet start typed /> }.into_any()
                            } else {
                                view! { <Facts sheet /> }.into_any()
                            }}
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
        <FormFailure error=failure(save) />
        <div class="effect-place" aria-live="polite">
            <Transition>{shown_effect}</Transition>
        </div>
        <Transition>
            {move || Suspend::new(async move {
                let writes = session.may().await.permits(Permission::WriteLimits);
                let lifts = writes.then_some((boost, reset));
                sheet
                    .await
                    .ok()
                    .map(|sheet| {
                        let plan = match sheet.owner {
                            LimitOwner::Plan(plan) => Some(plan),
                            _ => None,
                        };
                        let listed = plan.zip(sheet.models.clone()).filter(|_| writes);
                        view! {
                            {listed.map(|(plan, listed)| view! { <ModelsOfPlan plan listed action=models /> })}
                            <UseAndPast sheet lifts />
                        }
                    })
            })}
        </Transition>
    }
}

#[component]
fn Head(sheet: LimitSheet) -> impl IntoView {
    let t = use_texts();
    let title = fill(t.limits_of, &[&owner_words(t, &sheet.owner, &sheet.name)]);
    let lead = match (&sheet.owner, sheet.users) {
        (_, Some(users)) => fill(t.limits_lead_plan, &[&group(users), t.users(users)]),
        (LimitOwner::User(_), None) => t.limits_lead_user.to_owned(),
        _ => t.limits_lead_shared.to_owned(),
    };
    view! { <PageHead title trail=vec![(t.nav_plans, "/plans")] lead /> }
}

/// What the save has changed: as the server answered it, or, without script, as the trail has it.
#[component]
fn SavedNote(sheet: LimitSheet, save: ServerAction<SaveLimits>, plainly_saved: bool) -> impl IntoView {
    let t = use_texts();
    let LimitSheet { owner, history, .. } = sheet;
    let last = history.into_iter().next().filter(|_| plainly_saved);
    move || {
        let saved = save.value().with(|value| match value {
            Some(Ok(SavedLimits { owner: saved, changes })) if *saved == owner => Some(changes.clone()),
            _ => None,
        });
        let shown = match (saved, last.clone()) {
            (Some(changes), _) if changes == LimitChanges::default() => view! { <p>{t.saved_nothing}</p> }.into_any(),
            (Some(changes), _) => view! {
                <p>{t.saved}</p>
                <Changes changes />
            }
            .into_any(),
            (None, Some(row)) => view! {
                <p>{t.saved}</p>
                <Diff before=row.before after=row.after />
            }
            .into_any(),
            (None, None) => return None,
        };
        Some(view! { <Saved>{shown}</Saved> })
    }
}

#[component]
fn Form(sheet: LimitSheet, start: Proposal, typed: RwSignal<Option<Proposal>>) -> impl IntoView {
    let t = use_texts();
    let label = fill(t.limits_of, &[&owner_words(t, &sheet.owner, &sheet.name)]);
    let own_manner = !matches!(sheet.owner, LimitOwner::User(_));
    let kinds = |usual: bool| {
        LimitKind::ALL
            .iter()
            .filter(move |kind| LimitKind::USUAL.contains(kind) == usual)
    };
    // What is in use is in sight.
    let open = kinds(false).any(|kind| start.amounts.get(kind.name()).is_some_and(|amount| !amount.is_empty()))
        || !["", "UTC"].contains(&start.zone.as_str())
        || !["", "80"].contains(&start.soft.as_str());
    let begun = StoredValue::new(start.clone());
    let type_in = move |change: &dyn Fn(&mut Proposal)| {
        let mut proposal = typed.get_untracked().unwrap_or_else(|| begun.get_value());
        change(&mut proposal);
        typed.set(Some(proposal));
    };
    let fields = |usual: bool| {
        kinds(usual)
            .map(|&kind| {
                let amount = start.amounts.get(kind.name()).cloned().unwrap_or_default();
                let take = move |value: String| {
                    type_in(&|proposal| {
                        proposal.amounts.insert(kind.name().to_owned(), value.clone());
                    });
                };
                let inputmode = if kind.measure() == Measure::Money { "decimal" } else { "numeric" };
                view! { <Typed name=kind.name() label=t.limit(kind) value=amount inputmode placeholder=t.no_limit max_length=20 take /> }
            })
            .collect_view()
    };
    let (usual, more) = (fields(true), fields(false));
    let take_zone = move |value: String| type_in(&|proposal| proposal.zone.clone_from(&value));
    let take_soft = move |value: String| type_in(&|proposal| proposal.soft.clone_from(&value));
    let manner = own_manner.then(|| {
        view! {
            <div class="field-grid">
                <Typed name="zone" label=t.plan_zone value=start.zone.clone() hint=t.plan_zone_hint max_length=64 take=take_zone />
                <Typed
                    name="soft"
                    label=t.plan_soft
                    value=start.soft.clone()
                    inputmode="numeric"
                    hint=t.plan_soft_hint
                    max_length=3
                    take=take_soft
                />
            </div>
        }
    });
    view! {
        <section class="card">
            <QueryForm action="/plans/edit" class="stack" label>
                <input type="hidden" name="owner" value=sheet.owner.to_string() />
                <input type="hidden" name="preview" value="yes" />
                <p class="hint">{t.plan_hint}</p>
                <div class="field-grid">{usual}</div>
                <details open=open>
                    <summary>{if own_manner { t.plan_more } else { t.limits_more }}</summary>
                    <div class="stack">
                        <div class="field-grid">{more}</div>
                        {manner}
                    </div>
                </details>
                <Button>{t.limits_preview}</Button>
            </QueryForm>
        </section>
    }
}

/// A labelled line that says what is typed into it.
#[component]
fn Typed(
    name: &'static str,
    label: &'static str,
    value: String,
    #[prop(optional)] inputmode: Option<&'static str>,
    #[prop(optional)] placeholder: Option<&'static str>,
    #[prop(optional)] hint: Option<&'static str>,
    max_length: usize,
    take: impl Fn(String) + 'static,
) -> impl IntoView {
    let hint_id = hint.map(|_| format!("{name}-hint"));
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <input
                id=name
                name=name
                type="text"
                value=value
                inputmode=inputmode
                placeholder=placeholder
                autocomplete="off"
                maxlength=max_length.to_string()
                aria-describedby=hint_id.clone()
                on:input=move |event| take(event_target_value(&event))
            />
            {hint.map(|hint| view! { <p class="hint" id=hint_id>{hint}</p> })}
        </div>
    }
}

/// Which models the users of a plan may choose.
#[component]
fn ModelsOfPlan(plan: PlanId, listed: Vec<(bool, String)>, action: ServerAction<SetPlanModels>) -> impl IntoView {
    let t = use_texts();
    let pending = action.pending();
    let boxes = listed
        .into_iter()
        .map(|(is_listed, name)| {
            view! {
                <label class="check">
                    <input type="checkbox" name="models[]" value=name.clone() checked=is_listed />
                    <span>{name}</span>
                </label>
            }
        })
        .collect_view();
    let is_saved = move || action.value().with(|value| matches!(value, Some(Ok(()))));
    view! {
        <Card title=t.plan_models id="models" note=t.plan_models_note>
            <ActionForm action attr:class="stack">
                <input type="hidden" name="plan" value=plan.to_string() />
                <div class="checks" role="group" aria-labelledby="models">
                    {boxes}
                </div>
                <FormFailure error=failure(action) />
                {move || is_saved().then(|| view! { <Saved>{t.bot_saved}</Saved> })}
                <Button pending>{t.plan_models_set}</Button>
            </ActionForm>
        </Card>
    }
}

/// For who may only look.
#[component]
fn Facts(sheet: LimitSheet) -> impl IntoView {
    let t = use_texts();
    let rows = sheet
        .limits
        .into_iter()
        .filter(|(kind, amount)| amount.is_some() || LimitKind::USUAL.contains(kind))
        .map(|(kind, amount)| {
            view! {
                <div>
                    <dt>{t.limit(kind)}</dt>
                    <dd>{limit_words(t, kind, amount)}</dd>
                </div>
            }
        })
        .collect_view();
    view! {
        <section class="card">
            <dl class="facts">{rows}</dl>
        </section>
    }
}

/// What is used, with more of it for a while and its window anew for who may, and the past.
#[component]
fn UseAndPast(sheet: LimitSheet, lifts: Option<(ServerAction<BoostLimit>, ServerAction<ResetLimit>)>) -> impl IntoView {
    let t = use_texts();
    let LimitSheet {
        owner, bars, history, ..
    } = sheet;
    let bars: Vec<LimitBar> = bars.into_iter().filter(|bar| bar.limit.is_some()).collect();
    let kinds: Vec<LimitKind> = bars.iter().map(|bar| bar.kind).collect();
    let reset_of = {
        let owner = owner.clone();
        move |kind: LimitKind, used: Option<i64>| {
            let (_, action) = lifts.filter(|_| used.is_none_or(|used| used > 0))?;
            Some(view! { <ResetForm owner=owner.clone() kind action /> })
        }
    };
    let bars = bars
        .into_iter()
        .map(|limit| {
            let reset = reset_of(limit.kind, limit.used);
            view! { <LimitLine limit>{reset}</LimitLine> }
        })
        .collect::<Vec<_>>();
    view! {
        {(!bars.is_empty())
            .then(|| {
                view! {
                    <Card title=t.limits_use id="use">
                        <div class="stack-large">
                            {lifts.map(|(_, reset)| view! { <FormFailure error=failure(reset) /> })}
                            <ul class="limits">{bars}</ul>
                            {lifts.map(|(boost, _)| view! { <BoostForm owner kinds action=boost /> })}
                        </div>
                    </Card>
                }
            })}
        {(!history.is_empty())
            .then(|| {
                view! {
                    <Card title=t.limits_history id="history" note=t.limits_history_note flush=true>
                        <AuditRows rows=history with_target=false />
                    </Card>
                }
            })}
    }
}
