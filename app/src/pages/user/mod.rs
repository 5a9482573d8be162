//! One person: who, how much of what is used, what happened, and what staff may do about it.

pub mod api;

use domain::{
    LimitKind, LimitOwner, Measure, Money, Permission, PlanId, Scope, UserId,
    views::{Blocked, ConversationRow, LimitBar, Page, UserDetail, UserError},
};
use leptos::prelude::*;
use leptos_router::{
    hooks::{use_params_map, use_query_map},
    location::Url,
};

use self::api::{BlockUser, SetUserPlan, UnblockUser, get_user};
use super::{
    audit::AuditRows,
    plans::{
        api::{BoostLimit, ResetLimit, list_plans},
        boost::{BoostForm, ResetForm},
        edit_href,
    },
    users::{UserState, name_or},
};
use crate::{
    components::{
        Button, Card, Choice, Confirm, Copy, Empty, FormFailure, Glyph, Icon, LimitLine, Look, Notice, PageHead, Pager,
        Skeleton, Time, TimeStyle, Tone, page,
    },
    i18n::{fill, group, use_texts},
    state::{May, failure, not_found, successes, use_session},
};

/// The forms of this page; they outlive the content, so that what they said stays when it is fetched anew.
#[derive(Clone, Copy)]
struct Forms {
    block: ServerAction<BlockUser>,
    unblock: ServerAction<UnblockUser>,
    plan: ServerAction<SetUserPlan>,
    boost: ServerAction<BoostLimit>,
    reset: ServerAction<ResetLimit>,
}

#[component]
pub fn UserPage() -> impl IntoView {
    let params = use_params_map();
    let query = use_query_map();
    let talks = Memo::new(move |_| query.with(|query| query.get("talks")).filter(|key| !key.is_empty()));
    let session = use_session();
    let forms = Forms {
        block: ServerAction::new(),
        unblock: ServerAction::new(),
        plan: ServerAction::new(),
        boost: ServerAction::new(),
        reset: ServerAction::new(),
    };
    let saves = (successes(forms.block), successes(forms.unblock), successes(forms.plan));
    let limit_saves = (successes(forms.boost), successes(forms.reset));
    let user = Resource::new(
        move || {
            let id = params
                .with(|params| params.get("id"))
                .and_then(|id| id.parse::<UserId>().ok());
            let limits = (limit_saves.0.get(), limit_saves.1.get());
            (id, talks.get(), saves.0.get(), saves.1.get(), saves.2.get(), limits)
        },
        |(id, talks, ..)| async move { get_user(id.ok_or_else(not_found)?, talks).await },
    );
    let plans = Resource::new(|| (), |()| list_plans());
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                let plans = plans.await.unwrap_or_default();
                let plans: Vec<_> = plans.into_iter().map(|plan| (plan.id.to_string(), plan.name)).collect();
                let user = user.await;
                let is_older = talks.get_untracked().is_some();
                page(user, move |user| view! { <Person user plans may forms is_older /> }.into_any())
            })}
        </Transition>
    }
}

#[component]
fn Person(
    user: UserDetail,
    plans: Vec<(String, String)>,
    may: May,
    forms: Forms,
    /// Not the first page of conversations.
    is_older: bool,
) -> impl IntoView {
    let t = use_texts();
    let UserDetail {
        id,
        name,
        username,
        telegram_id,
        language,
        plan_id,
        plan,
        blocked,
        created,
        last_seen,
        limits,
        conversations,
        errors,
        staff_actions,
    } = user;
    let blocks = may.permits(Permission::BlockUsers);
    let moves = may.permits(Permission::ChangePlans) && !plans.is_empty();
    let sets_limits = may.permits(Permission::WriteLimits);
    let own = limits
        .iter()
        .filter(|bar| bar.scope == Scope::User && bar.limit.is_some());
    let own: Vec<LimitKind> = own.map(|bar| bar.kind).collect();
    let boosts = sets_limits && !own.is_empty();
    let reads = may.permits(Permission::ReadConversations);
    let audits = may.permits(Permission::ReadAudit);
    let is_blocked = blocked.is_some();
    view! {
        <PageHead title=name_or(name, t.nameless) trail=vec![(t.nav_users, "/users")]>
            <UserState blocked=is_blocked />
            {may.permits(Permission::ReadRequests)
                .then(|| {
                    view! {
                        <a class="button small" href=format!("/requests?user={id}")>
                            <Icon glyph=Glyph::Requests />
                            <span>{t.nav_requests}</span>
                        </a>
                    }
                })}
        </PageHead>
        {blocked.map(|blocked| view! { <BlockedNotice blocked /> })}
        <div class="columns wide-left">
            <div class="stack-large">
                <Card title=t.limits_title id="limits" note=fill(t.limits_note, &[&plan])>
                    <FormFailure error=failure(forms.reset) />
                    <Limits id limits reset=sets_limits.then_some(forms.reset) />
                    {sets_limits
                        .then(|| {
                            view! {
                                <p class="card-foot">
                                    <a href=edit_href(&LimitOwner::User(id))>{t.user_own_limits}</a>
                                </p>
                            }
                        })}
                </Card>
                <Card title=t.conversations_title id="conversations" flush=true>
                    <Conversations user=id conversations reads is_older />
                </Card>
                <Card title=t.user_errors_title id="errors" flush=true>
                    <Errors errors reads />
                </Card>
            </div>
            <div class="stack-large">
                <Card title=t.who_title id="who">
                    <dl class="facts">
                        {username
                            .map(|name| {
                                view! {
                                    <div>
                                        <dt>{t.username}</dt>
                                        <dd>{format!("@{name}")}</dd>
                                    </div>
                                }
                            })}
                        <div>
                            <dt>{t.telegram_id}</dt>
                            <dd>
                                {match telegram_id {
                                    Some(id) => view! { <Copy text=id.to_string() /> }.into_any(),
                                    None => t.playground_person.into_any(),
                                }}
                            </dd>
                        </div>
                        <div>
                            <dt>{t.language}</dt>
                            <dd>{language.unwrap_or_else(|| "—".to_owned())}</dd>
                        </div>
                        <div>
                            <dt>{t.first_seen}</dt>
                            <dd>
                                <Time at=created />
                            </dd>
                        </div>
                        <div>
                            <dt>{t.last_seen}</dt>
                            <dd>
                                <Time at=last_seen />
                            </dd>
                        </div>
                    </dl>
                </Card>
                {(moves || blocks || boosts)
                    .then(|| {
                        view! {
                            <Card title=t.actions_title id="actions">
                                <div class="stack-large">
                                    {moves.then(|| view! { <PlanForm id plan=plan_id plans action=forms.plan /> })}
                                    {boosts.then(|| view! { <BoostForm owner=LimitOwner::User(id) kinds=own action=forms.boost /> })}
                                    {blocks.then(|| view! { <BlockForm id is_blocked forms /> })}
                                </div>
                            </Card>
                        }
                    })}
            </div>
        </div>
        {audits
            .then(|| {
                view! {
                    <Card title=t.staff_actions_title id="staff" note=t.staff_actions_note flush=true>
                        <AuditRows rows=staff_actions with_target=false />
                        <p class="card-foot">
                            <a href=format!("/audit?target={id}")>{t.staff_actions_all}</a>
                        </p>
                    </Card>
                }
            })}
    }
}

#[component]
fn BlockedNotice(blocked: Blocked) -> impl IntoView {
    let t = use_texts();
    view! {
        <Notice tone=Tone::Bad glyph=Glyph::Stop>
            <p>
                <b>{t.blocked}</b>
                ": "
                {blocked.reason}
            </p>
            <p class="muted">{blocked.by}" · "<Time at=blocked.at /></p>
        </Notice>
    }
}

#[component]
fn Limits(id: UserId, limits: Vec<LimitBar>, reset: Option<ServerAction<ResetLimit>>) -> impl IntoView {
    let rows = limits
        .into_iter()
        .map(|limit| view! { <LimitRow id limit reset /> })
        .collect_view();
    view! { <ul class="limits">{rows}</ul> }
}

#[component]
fn LimitRow(id: UserId, limit: LimitBar, reset: Option<ServerAction<ResetLimit>>) -> impl IntoView {
    let t = use_texts();
    let LimitBar {
        scope,
        kind,
        used,
        limit: cap,
        ..
    } = limit;
    // Whose it is, where others use it up as well.
    let owner = match scope {
        Scope::User => String::new(),
        _ => format!("{} {}: ", t.scope(scope), limit.name).replace(" : ", ": "),
    };
    let reset = reset.filter(|_| scope == Scope::User && cap.is_some() && (used.is_none_or(|used| used > 0)));
    view! {
        <LimitLine limit owner>
            {reset.map(|action| view! { <ResetForm owner=LimitOwner::User(id) kind action /> })}
        </LimitLine>
    }
}

/// An amount of a limit with its unit, for sentences.
pub fn amount_or_none(kind: LimitKind, value: Option<i64>, none: &str) -> String {
    match (value, kind.measure()) {
        (None, _) => none.to_owned(),
        (Some(nanos), Measure::Money) => Money::from_nanos(nanos).to_string(),
        (Some(value), _) => group(value),
    }
}

#[component]
fn Conversations(user: UserId, conversations: Page<ConversationRow>, reads: bool, is_older: bool) -> impl IntoView {
    let t = use_texts();
    let here = format!("/users/{user}");
    let next = conversations
        .next
        .map(|key| format!("{here}?talks={}", Url::escape(&key)));
    if conversations.rows.is_empty() {
        return view! {
            <Empty glyph=Glyph::Chat title=t.conversations_none />
            <Pager first=is_older.then_some(here) next />
        }
        .into_any();
    }
    let rows = conversations
        .rows
        .into_iter()
        .map(|conversation| {
            let title = format!("{} · {}", conversation.bot, conversation.chat);
            let title = if reads {
                view! { <a href=format!("/conversations/{}", conversation.id)>{title}</a> }.into_any()
            } else {
                title.into_any()
            };
            view! {
                <tr>
                    <th scope="row" class="cell-main">
                        {title}
                        {conversation.current.then(|| view! { <span class="muted">{t.conversation_current}</span> })}
                    </th>
                    <td data-label=t.started class="number">
                        <Time at=conversation.started />
                    </td>
                    <td data-label=t.last_message class="number">
                        <Time at=conversation.last />
                    </td>
                </tr>
            }
        })
        .collect_view();
    view! {
        <table class="table cards-when-narrow">
            <caption class="visually-hidden">{t.conversations_title}</caption>
            <thead>
                <tr>
                    <th scope="col">{t.conversation}</th>
                    <th scope="col" class="number">{t.started}</th>
                    <th scope="col" class="number">{t.last_message}</th>
                </tr>
            </thead>
            <tbody>{rows}</tbody>
        </table>
        <Pager first=is_older.then_some(here) next next_words=t.conversations_older />
    }
    .into_any()
}

#[component]
fn Errors(errors: Vec<UserError>, reads: bool) -> impl IntoView {
    let t = use_texts();
    if errors.is_empty() {
        return view! { <Empty glyph=Glyph::Check title=t.user_errors_none /> }.into_any();
    }
    let rows = errors
        .into_iter()
        .map(|error| {
            let words = t.error_by_name(&error.code).unwrap_or_default();
            let link = error
                .conversation
                .filter(|_| reads)
                .map(|id| view! { <a class="button small" href=format!("/conversations/{id}")>{t.conversation}</a> });
            view! {
                <li>
                    <div>
                        <p class="row-title">
                            <code>{error.code}</code>
                        </p>
                        <p class="muted">{words}</p>
                    </div>
                    <span class="muted">
                        <Time at=error.at style=TimeStyle::Second />
                    </span>
                    {link}
                </li>
            }
        })
        .collect_view();
    view! { <ul class="rows">{rows}</ul> }.into_any()
}

#[component]
fn PlanForm(
    id: UserId,
    plan: PlanId,
    plans: Vec<(String, String)>,
    action: ServerAction<SetUserPlan>,
) -> impl IntoView {
    let t = use_texts();
    let pending = action.pending();
    view! {
        <ActionForm action attr:class="stack">
            <input type="hidden" name="id" value=id.to_string() />
            <Choice label=t.plan name="plan" id="plan" chosen=plan.to_string() options=plans />
            <FormFailure error=failure(action) />
            <Button pending>{t.plan_change}</Button>
        </ActionForm>
    }
}

#[component]
fn BlockForm(id: UserId, is_blocked: bool, forms: Forms) -> impl IntoView {
    let t = use_texts();
    if is_blocked {
        let pending = forms.unblock.pending();
        return view! {
            <ActionForm action=forms.unblock attr:class="stack">
                <input type="hidden" name="id" value=id.to_string() />
                <p class="muted">{t.unblock_hint}</p>
                <FormFailure error=failure(forms.unblock) />
                <Button pending>{t.unblock}</Button>
            </ActionForm>
        }
        .into_any();
    }
    let pending = forms.block.pending();
    view! {
        <FormFailure error=failure(forms.block) />
        <Confirm open=t.block glyph=Glyph::Stop danger=true>
            <ActionForm action=forms.block attr:class="stack">
                <input type="hidden" name="id" value=id.to_string() />
                <p>{t.block_hint}</p>
                <div class="field">
                    <label for="reason">{t.reason}</label>
                    <textarea id="reason" name="reason" rows="3" maxlength="500" required=true></textarea>
                    <p class="hint">{t.reason_hint}</p>
                </div>
                <Button look=Look::Danger pending>
                    {t.block_confirm}
                </Button>
            </ActionForm>
        </Confirm>
    }
    .into_any()
}
