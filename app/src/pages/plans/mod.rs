//! Limits: those of plans, of which each user has their own, and those that many share, with what is used of them. All are changed on
//! one page (`edit`), which shows what a change would do before it is saved.

pub mod api;
pub mod boost;
pub mod edit;
mod effect;

use domain::{
    LimitKind, LimitOwner, Permission, Scope,
    views::{
        LimitEvent, PlanView,
        limits::{NamedOwner, OwnerLimits},
    },
};
use leptos::prelude::*;
use leptos_router::location::Url;

use self::api::{CreatePlan, list_other_limits, list_owners, list_plans, list_thresholds};
use super::user::amount_or_none;
use crate::{
    components::{
        Badge, Button, Card, Choice, Empty, Field, FormFailure, Glyph, LimitLine, PageHead, QueryForm, Skeleton, Time,
        Tone, page,
    },
    i18n::{Texts, amount, fill, group, use_texts},
    state::{failure, successes, use_session},
};

/// Where the limits of an owner are changed.
pub fn edit_href(owner: &LimitOwner) -> String {
    format!("/plans/edit?owner={}", Url::escape(&owner.to_string()))
}

/// `Bot: Anna`, `The whole deck`.
pub fn owner_words(t: &Texts, owner: &LimitOwner, name: &str) -> String {
    let kind = owner.parts().map_or(t.plan, |(scope, _)| t.scope(scope));
    match name {
        "" => kind.to_owned(),
        name => format!("{kind}: {name}"),
    }
}

#[component]
pub fn PlansPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let create = ServerAction::<CreatePlan>::new();
    let created = successes(create);
    let plans = Resource::new(move || created.get(), |_| list_plans());
    let others = Resource::new(|| (), |()| list_other_limits());
    let owners = Resource::new(|| (), |()| list_owners());
    let thresholds = Resource::new(|| (), |()| list_thresholds());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let writes = session.may().await.permits(Permission::WriteLimits);
                let (others, thresholds) = (others.await.unwrap_or_default(), thresholds.await.unwrap_or_default());
                let owners = owners.await.unwrap_or_default();
                page(
                    plans.await,
                    move |plans| {
                        let cards = plans.into_iter().map(|plan| view! { <Plan plan writes /> }).collect::<Vec<_>>();
                        view! {
                            <PageHead title=t.nav_plans lead=t.plans_lead />
                            {if cards.is_empty() {
                                view! { <Empty glyph=Glyph::Limits title=t.plans_none /> }.into_any()
                            } else {
                                view! { <div class="grid-cards">{cards}</div> }.into_any()
                            }}
                            {writes.then(|| view! { <NewPlan create /> })}
                            <Others others owners writes />
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
fn Plan(plan: PlanView, writes: bool) -> impl IntoView {
    let t = use_texts();
    let heading = format!("plan-{}", plan.id);
    let people = fill(t.plan_users, &[&group(plan.users), t.users(plan.users)]);
    let rows = plan
        .limits
        .iter()
        .filter(|(kind, amount)| amount.is_some() || LimitKind::USUAL.contains(kind))
        .map(|(kind, amount)| view! { <Fact name=t.limit(*kind) value=limit_words(t, *kind, *amount) /> })
        .collect_view();
    let manner = (plan.zone != "UTC" || plan.soft_percent != 80).then(|| {
        view! {
            <Fact name=t.plan_zone value=plan.zone.clone() />
            <Fact name=t.plan_soft value=plan.soft_percent.to_string() />
        }
    });
    let models = plan.models.join(", ");
    let models = (!models.is_empty()).then(|| view! { <Fact name=t.plan_models value=models /> });
    view! {
        <section class="card" aria-labelledby=heading>
            <header class="card-head">
                <div class="card-title">
                    <h2 id=heading.clone()>{plan.name.clone()}</h2>
                    <p class="muted">{people}</p>
                </div>
                {plan.is_default.then(|| view! { <Badge tone=Tone::Accent glyph=Glyph::Check text=t.plan_default /> })}
            </header>
            <dl class="facts">{rows} {models} {manner}</dl>
            {writes.then(|| view! { <Change owner=LimitOwner::Plan(plan.id) name=plan.name /> })}
        </section>
    }
}

#[component]
fn Fact(name: &'static str, #[prop(into)] value: String) -> impl IntoView {
    view! {
        <div>
            <dt>{name}</dt>
            <dd>{value}</dd>
        </div>
    }
}

/// The way to where limits are changed.
#[component]
fn Change(owner: LimitOwner, #[prop(into)] name: String) -> impl IntoView {
    let t = use_texts();
    let label = fill(t.limits_change_label, &[&owner_words(t, &owner, &name)]);
    view! {
        <div class="card-actions">
            <a class="button" href=edit_href(&owner) aria-label=label>
                {t.limits_change}
            </a>
        </div>
    }
}

/// An amount that says what nothing and zero mean.
fn limit_words(t: &Texts, kind: LimitKind, amount: Option<i64>) -> String {
    let words = amount_or_none(kind, amount, t.no_limit);
    match amount {
        Some(0) => fill(t.limit_zero, &[&words]),
        _ => words,
    }
}

/// Limits of bots, models, users, API keys and the deployment, and a way to set more.
#[component]
fn Others(others: Vec<OwnerLimits>, owners: Vec<NamedOwner>, writes: bool) -> impl IntoView {
    let t = use_texts();
    let rows = others
        .into_iter()
        .map(|one| view! { <Other one writes /> })
        .collect::<Vec<_>>();
    let none = rows.is_empty();
    let options = owners
        .into_iter()
        .map(|one| (one.owner.to_string(), owner_words(t, &one.owner, &one.name)))
        .collect::<Vec<_>>();
    view! {
        <Card title=t.other_limits id="other-limits" note=t.other_limits_note>
            {if none {
                view! { <p class="muted">{t.other_limits_none}</p> }.into_any()
            } else {
                view! { <ul class="owners">{rows}</ul> }.into_any()
            }}
            {writes
                .then(|| {
                    view! {
                        <QueryForm action="/plans/edit" class="inline-form" label=t.other_limits>
                            <Choice label=t.limits_choose name="owner" id="limit-owner" chosen="" options />
                            <Button>{t.limits_set}</Button>
                        </QueryForm>
                    }
                })}
        </Card>
    }
}

#[component]
fn Other(one: OwnerLimits, writes: bool) -> impl IntoView {
    let t = use_texts();
    let OwnerLimits {
        owner,
        name,
        limits,
        bars,
    } = one;
    let content = if bars.is_empty() {
        let limits = limits
            .into_iter()
            .map(|(kind, amount)| view! { <li>{t.limit(kind)} ": " {limit_words(t, kind, Some(amount))}</li> })
            .collect_view();
        view! { <ul class="muted">{limits}</ul> }.into_any()
    } else {
        let bars = bars
            .into_iter()
            .map(|limit| view! { <LimitLine limit /> })
            .collect_view();
        view! { <ul class="limits">{bars}</ul> }.into_any()
    };
    view! {
        <li>
            <h3 class="row-title">
                <Owner owner=owner.clone() name=name.clone() />
            </h3>
            {content}
            {writes.then(|| view! { <Change owner name /> })}
        </li>
    }
}

#[component]
fn Thresholds(thresholds: Vec<LimitEvent>) -> impl IntoView {
    let t = use_texts();
    let rows = thresholds
        .into_iter()
        .filter_map(|event| {
            let owner = LimitOwner::of(event.scope, &event.subject).ok()?;
            let (used, limit) = (amount(event.kind, event.used), amount(event.kind, event.limit));
            Some(view! {
                <li>
                    <div>
                        <p class="row-title">
                            <Owner owner name=event.name />
                        </p>
                        <p class="muted">{t.limit(event.kind)} ": " {fill(t.used_of, &[&used, &limit])}</p>
                    </div>
                    <span class="muted">
                        <Time at=event.at />
                    </span>
                </li>
            })
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
fn Owner(owner: LimitOwner, name: String) -> impl IntoView {
    let t = use_texts();
    let words = owner_words(t, &owner, &name);
    let href = match owner.parts() {
        Some((Scope::User, subject)) => format!("/users/{subject}"),
        Some((Scope::Bot, _)) => "/bots".to_owned(),
        Some((Scope::Model, _)) => "/models".to_owned(),
        Some((Scope::ApiKey, _)) => "/api-keys".to_owned(),
        _ => return words.into_any(),
    };
    view! { <a href=href>{words}</a> }.into_any()
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
