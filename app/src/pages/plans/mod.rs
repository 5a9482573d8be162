//! Plans: what their users may use up. An empty field is no limit, zero lets nothing through.

pub mod api;

use domain::{LimitKind, Permission, views::PlanView};
use leptos::prelude::*;

use self::api::{CreatePlan, PlanChange, SavePlan, list_plans};
use super::user::amount_or_none;
use crate::{
    components::{Badge, Button, Card, Empty, Field, FormFailure, Glyph, Look, PageHead, Saved, Skeleton, Tone, page},
    i18n::{fill, group, use_texts},
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
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let writes = session.may().await.permits(Permission::WriteLimits);
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
        .map(|(kind, amount)| kind.show_amount(*amount))
        .collect::<Vec<_>>()
        .join(";");
    let content = if writes {
        let pending = save.pending();
        let fields = plan
            .limits
            .iter()
            .map(|(kind, amount)| {
                view! {
                    <Field
                        label=t.limit(*kind)
                        name=kind.name()
                        id=format!("{id}-{kind}")
                        value=kind.show_amount(*amount)
                        inputmode=if kind.measure() == domain::Measure::Money { "decimal" } else { "numeric" }
                        placeholder=t.no_limit
                        autocomplete="off"
                        max_length=20
                    />
                }
            })
            .collect_view();
        view! {
            <ActionForm action=save attr:class="stack" attr:aria-labelledby=heading.clone()>
                <input type="hidden" name="plan" value=id.to_string() />
                <input type="hidden" name="shown" value=shown />
                <div class="field-grid">{fields}</div>
                <p class="hint">{t.plan_hint}</p>
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

#[component]
fn Changes(change: PlanChange) -> impl IntoView {
    let t = use_texts();
    if change.changes.is_empty() {
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
    view! {
        <Saved>
            <p>{t.saved}</p>
            <ul class="changes">{rows}</ul>
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
