//! Plans: what their users may use up. An empty field is no limit, zero lets nothing through. Below them the limits of everything else,
//! and the thresholds that were passed.

pub mod api;

use domain::{
    LimitKind, Permission, Scope,
    views::{LimitEvent, PlanView, ScopeLimits},
};
use leptos::prelude::*;

use self::api::{CreatePlan, PlanChange, SavePlan, list_other_limits, list_plans, list_thresholds};
use super::user::amount_or_none;
use crate::{
    components::{
        Badge, Button, Card, Empty, Field, FormFailure, Glyph, Look, PageHead, Saved, Skeleton, Time, Tone, page,
    },
    i18n::{amount, fill, group, use_texts},
    state::{failure, successes, use_session},
};

#[component]
pub fn PlansPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let save = ServerAction::<SavePlan>::new();
    let create = ServerAction::<CreatePlan>::new();
    let saves = (successes(save), successes(create));
    let plans = Resource::new(move || (saves.0.get(), saves.1.get()), |_| list_plans());
    let others = Resource::new(|| (), |()| list_other_limits());
    let thresholds = Resource::new(|| (), |()| list_thresholds());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let writes = session.may().await.permits(Permission::WriteLimits);
                let (others, thresholds) = (others.await.unwrap_or_default(), thresholds.await.unwrap_or_default());
                page(
                    plans.await,
                    move |plans| {
                        let cards = plans.into_iter().map(|plan| view! { <Plan plan writes save /> }).collect::<Vec<_>>();
                        view! {
                            <PageHead title=t.nav_plans lead=t.plans_lead />
                            <FormFailure error=failure(save) />
                            {if cards.is_empty() {
                                view! { <Empty glyph=Glyph::Limits title=t.plans_none /> }.into_any()
                            } else {
                                view! { <div class="grid-cards">{cards}</div> }.into_any()
                            }}
                            {writes.then(|| view! { <NewPlan create /> })}
                            {(!others.is_empty()).then(|| view! { <Others others /> })}
                            {(!thresholds.is_empty()).then(|| view! { <Thresholds thresholds /> })}
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

#[component]
fn Plan(plan: PlanView, writes: bool, save: ServerAction<SavePlan>) -> impl IntoView {
    let t = use_texts();
    let id = plan.id;
    let heading = format!("plan-{id}");
    let save_label = fill(t.plan_save_label, &[&plan.name]);
    let people = fill(t.plan_users, &[&group(plan.users), t.users(plan.users)]);
    let saved = move || {
        let change = save
            .value()
            .with(|value| value.as_ref().and_then(|result| result.as_ref().ok()).cloned());
        change
            .filter(|change| change.plan == id)
            .map(|change| view! { <Changes change /> })
    };
    let shown = plan
        .limits
        .iter()
        .map(|(kind, amount)| format!("{kind}={}", kind.show_amount(*amount)))
        .collect::<Vec<_>>()
        .join(";");
    let content = if writes {
        let pending = save.pending();
        let fields = |usual: bool| {
            let chosen = plan
                .limits
                .iter()
                .filter(|(kind, _)| LimitKind::USUAL.contains(kind) == usual);
            chosen
                .map(|(kind, amount)| view! { <Amount owner=id.to_string() kind=*kind amount=*amount usual /> })
                .collect_view()
        };
        let (usual, more) = (fields(true), fields(false));
        // What is in use is in sight.
        let open = plan.zone != "UTC"
            || plan.soft_percent != 80
            || plan
                .limits
                .iter()
                .any(|(kind, amount)| amount.is_some() && !LimitKind::USUAL.contains(kind));
        view! {
            <ActionForm action=save attr:class="stack" attr:aria-labelledby=heading.clone()>
                <input type="hidden" name="plan" value=id.to_string() />
                <input type="hidden" name="shown" value=shown />
                <div class="field-grid">{usual}</div>
                <p class="hint">{t.plan_hint}</p>
                <details open=open>
                    <summary>{t.plan_more}</summary>
                    <div class="stack">
                        <div class="field-grid">{more}</div>
                        <div class="field-grid">
                            <Field label=t.plan_zone name="zone" id=format!("{id}-zone") value=plan.zone.clone() hint=t.plan_zone_hint max_length=64 />
                            <Field
                                label=t.plan_soft
                                name="soft"
                                id=format!("{id}-soft")
                                value=plan.soft_percent.to_string()
                                inputmode="numeric"
                                hint=t.plan_soft_hint
                                max_length=3
                            />
                        </div>
                    </div>
                </details>
                <Button look=Look::Main pending label=save_label>
                    {t.save}
                </Button>
            </ActionForm>
        }
        .into_any()
    } else {
        let rows = plan
            .limits
            .iter()
            .filter(|(kind, amount)| amount.is_some() || LimitKind::USUAL.contains(kind))
            .map(|(kind, amount)| {
                view! {
                    <div>
                        <dt>{t.limit(*kind)}</dt>
                        <dd>{amount_or_none(*kind, *amount, t.no_limit)}</dd>
                    </div>
                }
            })
            .collect_view();
        view! { <dl class="facts">{rows}</dl> }.into_any()
    };
    view! {
        <section class="card" aria-labelledby=heading>
            <header class="card-head">
                <div class="card-title">
                    <h2 id=heading.clone()>{plan.name}</h2>
                    <p class="muted">{people}</p>
                </div>
                {plan.is_default.then(|| view! { <Badge tone=Tone::Accent glyph=Glyph::Check text=t.plan_default /> })}
            </header>
            {content}
            {saved}
        </section>
    }
}

/// A field for one limit. Those beyond the usual ones travel together, by name.
#[component]
pub(super) fn Amount(owner: String, kind: LimitKind, amount: Option<i64>, usual: bool) -> impl IntoView {
    let t = use_texts();
    let id = format!("{owner}-{kind}");
    let name = if usual {
        kind.name().to_owned()
    } else {
        format!("more[{kind}]")
    };
    let inputmode = if kind.measure() == domain::Measure::Money {
        "decimal"
    } else {
        "numeric"
    };
    view! {
        <div class="field">
            <label for=id.clone()>{t.limit(kind)}</label>
            <input
                id=id
                name=name
                type="text"
                value=kind.show_amount(amount)
                inputmode=inputmode
                placeholder=t.no_limit
                autocomplete="off"
                maxlength="20"
            />
        </div>
    }
}

/// Limits of bots, models, users, API keys and the deployment, as the command line sets them.
#[component]
fn Others(others: Vec<ScopeLimits>) -> impl IntoView {
    let t = use_texts();
    let rows = others
        .into_iter()
        .map(|one| {
            let limits = one
                .limits
                .iter()
                .map(|(kind, amount)| view! { <li>{t.limit(*kind)} ": " {amount_or_none(*kind, Some(*amount), t.no_limit)}</li> })
                .collect_view();
            view! {
                <li>
                    <div>
                        <p class="row-title">
                            <Owner scope=one.scope subject=one.subject name=one.name />
                        </p>
                        <ul class="muted">{limits}</ul>
                    </div>
                </li>
            }
        })
        .collect_view();
    view! {
        <Card title=t.other_limits id="other-limits" note=t.other_limits_note flush=true>
            <ul class="rows">{rows}</ul>
        </Card>
    }
}

#[component]
fn Thresholds(thresholds: Vec<LimitEvent>) -> impl IntoView {
    let t = use_texts();
    let rows = thresholds
        .into_iter()
        .map(|event| {
            let (used, limit) = (amount(event.kind, event.used), amount(event.kind, event.limit));
            view! {
                <li>
                    <div>
                        <p class="row-title">
                            <Owner scope=event.scope subject=event.subject name=event.name />
                        </p>
                        <p class="muted">{t.limit(event.kind)} ": " {fill(t.used_of, &[&used, &limit])}</p>
                    </div>
                    <span class="muted">
                        <Time at=event.at />
                    </span>
                </li>
            }
        })
        .collect_view();
    view! {
        <Card title=t.thresholds id="thresholds" note=t.thresholds_note flush=true>
            <ul class="rows">{rows}</ul>
        </Card>
    }
}

/// Whose limit it is, with a link where there is a page.
#[component]
fn Owner(scope: Scope, subject: String, name: String) -> impl IntoView {
    let t = use_texts();
    let words = if name.is_empty() {
        t.scope(scope).to_owned()
    } else {
        format!("{}: {name}", t.scope(scope))
    };
    match scope {
        Scope::User => view! { <a href=format!("/users/{subject}")>{words}</a> }.into_any(),
        Scope::Bot => view! { <a href="/bots">{words}</a> }.into_any(),
        Scope::ApiKey => view! { <a href="/api-keys">{words}</a> }.into_any(),
        _ => words.into_any(),
    }
}

#[component]
fn Changes(change: PlanChange) -> impl IntoView {
    let t = use_texts();
    if change.changes.is_empty() && change.manner.is_none() {
        return view! {
            <Saved>
                <p>{t.saved_nothing}</p>
            </Saved>
        }
        .into_any();
    }
    let show = move |kind: LimitKind, value| amount_or_none(kind, value, t.no_limit);
    let rows = change
        .changes
        .into_iter()
        .map(|(kind, was, is)| {
            view! {
                <li>
                    {t.limit(kind)}
                    ": "
                    <del>{show(kind, was)}</del>
                    " → "
                    <ins>{show(kind, is)}</ins>
                </li>
            }
        })
        .collect_view();
    let manner = change.manner.map(|[was, is]| {
        let show = |(zone, soft): (String, i64)| format!("{zone}, {soft} %");
        view! {
            <li>
                {t.plan_zone}
                ", "
                {t.plan_soft}
                ": "
                <del>{show(was)}</del>
                " → "
                <ins>{show(is)}</ins>
            </li>
        }
    });
    view! {
        <Saved>
            <p>{t.saved}</p>
            <ul class="changes">{rows} {manner}</ul>
        </Saved>
    }
    .into_any()
}

#[component]
fn NewPlan(create: ServerAction<CreatePlan>) -> impl IntoView {
    let t = use_texts();
    let pending = create.pending();
    view! {
        <Card title=t.plan_new id="new-plan">
            <ActionForm action=create attr:class="inline-form">
                <Field label=t.name name="name" id="plan-name" required=true max_length=40 autocomplete="off" />
                <Button glyph=Glyph::Plus pending>
                    {t.plan_create}
                </Button>
            </ActionForm>
            <p class="hint">{t.plan_new_hint}</p>
            <FormFailure error=failure(create) />
        </Card>
    }
}
