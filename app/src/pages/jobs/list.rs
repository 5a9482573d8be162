//! One list of jobs, and the forms below it.

use std::collections::BTreeSet;

use domain::{
    JobId, Permission,
    views::{
        Page,
        jobs::{JobAction, JobList, JobRow, JobsChanged},
    },
};
use leptos::prelude::*;

use super::{Chosen, LIST, Query, address, api::ActOnJobs};
use crate::{
    components::{Badge, Confirm, Empty, FormFailure, Glyph, Pager, Saved, Time, TimeStyle, Tone},
    i18n::{duration, fill, group, use_texts},
    pages::users::name_or,
    state::{May, failure},
};

#[component]
pub(super) fn Jobs(
    jobs: Page<JobRow>,
    query: Query,
    may: May,
    act: ServerAction<ActOnJobs>,
    chosen: Chosen,
) -> impl IntoView {
    let t = use_texts();
    let list = query.list;
    let first = query.after.is_some().then(|| address(&query, None));
    let next = jobs.next.as_deref().map(|key| address(&query, Some(key)));
    let ids: Vec<JobId> = jobs.rows.iter().map(|job| job.id).collect();
    let acts = may.permits(Permission::WriteJobs)
        && matches!(list, JobList::Dead | JobList::Retrying | JobList::Discarded)
        && !ids.is_empty();
    let table = if jobs.rows.is_empty() {
        let is_filtered = query.bot.is_some() || !query.words.is_empty();
        let (title, hint) = if is_filtered {
            (t.jobs_none_found, "")
        } else {
            t.jobs_none(list)
        };
        view! { <Empty glyph=Glyph::Queue title hint /> }.into_any()
    } else {
        view! { <Table rows=jobs.rows list acts chosen /> }.into_any()
    };
    let content = if acts {
        let hidden = ids
            .iter()
            .map(|id| view! { <input type="hidden" name="page[]" value=id.to_string() /> })
            .collect_view();
        view! {
            <ActionForm action=act attr:class="stack">
                {hidden} {table} <Actions list act chosen />
            </ActionForm>
        }
        .into_any()
    } else {
        table
    };
    view! {
        <section id=LIST aria-label=t.job_list(list)>
            <FormFailure error=failure(act) />
            <Done act />
            {content}
            <Pager first next />
        </section>
    }
}

/// What the last form has changed.
#[component]
fn Done(act: ServerAction<ActOnJobs>) -> impl IntoView {
    let t = use_texts();
    move || {
        let done = act.value().with(|value| value.as_ref()?.as_ref().ok().copied());
        done.map(|JobsChanged { action, changed, left }| {
            let words = match action {
                JobAction::Retry => t.jobs_retried,
                JobAction::Discard => t.jobs_discarded,
            };
            let words = fill(words, &[&group(changed), t.jobs(changed)]);
            let left = (left > 0).then(|| fill(t.jobs_left, &[&group(left)]));
            view! {
                <Saved>
                    <p>{words}</p>
                    {left.map(|left| view! { <p>{left}</p> })}
                </Saved>
            }
        })
    }
}

#[component]
fn Actions(list: JobList, act: ServerAction<ActOnJobs>, chosen: Chosen) -> impl IntoView {
    let t = use_texts();
    let pending = act.pending();
    let (open, hint, glyph, confirm) = match list {
        JobList::Retrying => (t.jobs_hurry, t.jobs_hurry_hint, Glyph::Bolt, t.jobs_hurry_confirm),
        _ => (t.jobs_retry, t.jobs_retry_hint, Glyph::Play, t.jobs_retry_confirm),
    };
    let count = move || {
        let count = i64::try_from(chosen.with(BTreeSet::len)).unwrap_or(i64::MAX);
        fill(t.jobs_chosen, &[&group(count)])
    };
    view! {
        <div class="card-actions job-actions">
            <p class="muted needs-script" role="status">{count}</p>
            <Confirm open glyph>
                <div class="stack">
                    <p>{hint}</p>
                    <button type="submit" class="button main" name="action" value="retry" disabled=move || pending.get()>
                        {confirm}
                    </button>
                </div>
            </Confirm>
            {matches!(list, JobList::Dead | JobList::Retrying)
                .then(|| {
                    view! {
                        <Confirm open=t.jobs_discard glyph=Glyph::Stop danger=true>
                            <div class="stack">
                                <p>{t.jobs_discard_hint}</p>
                                <button
                                    type="submit"
                                    class="button danger"
                                    name="action"
                                    value="discard"
                                    disabled=move || pending.get()
                                >
                                    {t.jobs_discard_confirm}
                                </button>
                            </div>
                        </Confirm>
                    }
                })}
        </div>
    }
}

#[component]
fn Table(rows: Vec<JobRow>, list: JobList, acts: bool, chosen: Chosen) -> impl IntoView {
    let t = use_texts();
    let heads = heads(t, list)
        .into_iter()
        .map(|head| view! { <th scope="col">{head}</th> })
        .collect_view();
    let ids: BTreeSet<JobId> = rows.iter().map(|job| job.id).collect();
    let all = ids.clone();
    let every = move || !all.is_empty() && chosen.with(|chosen| chosen.is_superset(&all));
    // Outside of the table, so that it is there on a telephone, too.
    let choose_all = acts.then(|| {
        view! {
            <label class="check table-check">
                <input
                    type="checkbox"
                    name="all"
                    value="true"
                    prop:checked=every
                    on:change:target=move |event| {
                        if event.target().checked() {
                            chosen.set(ids.clone());
                        } else {
                            chosen.update(BTreeSet::clear);
                        }
                    }
                />
                <span>{t.jobs_choose_all}</span>
            </label>
        }
    });
    let rows = rows
        .into_iter()
        .map(|job| view! { <Row job list acts chosen /> })
        .collect_view();
    view! {
        <div class="table-card">
            {choose_all}
            <table class="table cards-when-narrow jobs">
                <caption class="visually-hidden">{t.job_list(list)}</caption>
                <thead>
                    <tr>
                        {acts.then(|| view! { <th scope="col"><span class="visually-hidden">{t.jobs_choose}</span></th> })}
                        <th scope="col">{t.job}</th>
                        {heads}
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

/// What stands over the columns after the first.
fn heads(t: &'static crate::i18n::Texts, list: JobList) -> Vec<&'static str> {
    match list {
        JobList::Dead => vec![t.job_error, t.job_attempts, t.job_died],
        JobList::Discarded => vec![t.job_error, t.job_attempts, t.job_died, t.job_discarded],
        JobList::Retrying => vec![t.job_error, t.job_attempts, t.job_next_try],
        JobList::Running => vec![t.job_since, t.job_attempts, t.job_worker, t.job_lease_left],
        JobList::Waiting => vec![t.job_waits_for, t.job_came],
    }
}

#[component]
fn Row(job: JobRow, list: JobList, acts: bool, chosen: Chosen) -> impl IntoView {
    let t = use_texts();
    let id = job.id;
    let kind = t.job_kind(&job.kind).map_or_else(|| job.kind.clone(), str::to_owned);
    let tick = acts.then(|| {
        let label = fill(t.jobs_choose_one, &[&kind, &job.bot_name, &id.to_string()]);
        view! {
            <td class="cell-check">
                <input
                    type="checkbox"
                    name="ids[]"
                    value=id.to_string()
                    aria-label=label
                    prop:checked=move || chosen.with(|chosen| chosen.contains(&id))
                    on:change:target=move |event| {
                        let is_on = event.target().checked();
                        chosen.update(|chosen| if is_on { chosen.insert(id); } else { chosen.remove(&id); });
                    }
                />
            </td>
        }
    });
    let cells = cells(t, &job, list);
    let user = job.user.map(|user| {
        view! { <a href=format!("/users/{}", user.id)>{name_or(user.name, t.nameless)}</a> }
    });
    let conversation = job.conversation.map(|conversation| {
        view! { <a href=format!("/conversations/{conversation}")>{t.job_conversation}</a> }
    });
    view! {
        <tr>
            {tick}
            <th scope="row" class="cell-job">
                <b>{kind}</b>
                <span class="muted">{job.bot_name}</span>
                <span class="job-links">{user} {conversation}</span>
                <details class="payload">
                    <summary>{t.job_payload}</summary>
                    <p class="muted">{t.job_payload_hint}</p>
                    <pre>{job.payload}</pre>
                    <p class="muted"><code>{id.to_string()}</code></p>
                </details>
            </th>
            {cells}
        </tr>
    }
}

fn cells(t: &'static crate::i18n::Texts, job: &JobRow, list: JobList) -> Vec<AnyView> {
    let cell = |label: &'static str, content: AnyView| view! { <td data-label=label>{content}</td> }.into_any();
    let time = |at: Option<chrono::DateTime<chrono::Utc>>| match at {
        Some(at) => view! { <Time at style=TimeStyle::Second /> }.into_any(),
        None => "—".into_any(),
    };
    let attempts = fill(
        t.job_attempt_of,
        &[&job.attempts.to_string(), &job.max_attempts.to_string()],
    );
    let error = || {
        let words = job.error.clone().unwrap_or_else(|| "—".to_owned());
        view! {
            <td data-label=t.job_error class="cell-error">
                <span>{words}</span>
            </td>
        }
        .into_any()
    };
    match list {
        JobList::Dead | JobList::Discarded => {
            let mut cells = vec![
                error(),
                cell(t.job_attempts, attempts.into_any()),
                cell(t.job_died, time(job.ended)),
            ];
            if list == JobList::Discarded {
                cells.push(cell(t.job_discarded, time(job.discarded)));
            }
            cells
        }
        JobList::Retrying => {
            let next = if job.is_behind {
                view! { <Badge tone=Tone::Quiet glyph=Glyph::Queue text=t.job_behind /> }.into_any()
            } else {
                time(Some(job.run_at))
            };
            vec![
                error(),
                cell(t.job_attempts, attempts.into_any()),
                cell(t.job_next_try, next),
            ]
        }
        JobList::Running => {
            let held = job.held.clone();
            let (since, worker, left) = held.map_or((None, String::new(), 0), |held| {
                (held.since, held.worker, held.lease_left_ms)
            });
            let lease = if left < 0 {
                view! { <Badge tone=Tone::Bad glyph=Glyph::Warning text=t.job_lease_over /> }.into_any()
            } else {
                duration(t, left).into_any()
            };
            vec![
                cell(t.job_since, time(since)),
                cell(t.job_attempts, attempts.into_any()),
                cell(t.job_worker, view! { <code>{worker}</code> }.into_any()),
                cell(t.job_lease_left, lease),
            ]
        }
        JobList::Waiting => {
            let (glyph, words) = if job.is_behind {
                (Glyph::Queue, t.job_behind)
            } else {
                (Glyph::Clock, t.job_ready)
            };
            vec![
                cell(
                    t.job_waits_for,
                    view! { <Badge tone=Tone::Quiet glyph text=words /> }.into_any(),
                ),
                cell(t.job_came, time(Some(job.created))),
            ]
        }
    }
}
