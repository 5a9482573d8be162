//! The state of the queue in figures, the last hour, and what runs now.

use chrono::{DateTime, Timelike, Utc};
use domain::views::jobs::{JobBoard, JobRow};
use leptos::prelude::*;

use crate::{
    components::{Card, Chart, ChartPoint, Empty, Glyph, Stat},
    i18n::{Texts, duration, fill, group, use_texts},
};

/// A job that waits longer than this has something in its way.
const OLD_MS: i64 = 60_000;
/// Sixty bars have room for a label under every twelfth.
const LABEL_EVERY: usize = 12;

#[component]
pub(super) fn Figures(board: JobBoard) -> impl IntoView {
    let t = use_texts();
    let oldest = board.oldest_ms.map_or_else(|| "—".to_owned(), |ms| duration(t, ms));
    let (done, dead) = board
        .minutes
        .iter()
        .fold((0, 0), |(done, dead), minute| (done + minute.done, dead + minute.dead));
    let is_quiet = done == 0 && dead == 0;
    let summary = fill(t.jobs_chart_summary, &[&group(done), &group(dead)]);
    let points = board
        .minutes
        .iter()
        .map(|minute| ChartPoint {
            label: clock(minute.minute),
            value: minute.done,
            faults: minute.dead,
        })
        .collect::<Vec<_>>();
    view! {
        <dl class="stats">
            <Stat
                name=t.queue_waiting
                value=group(board.waiting + board.ready)
                note=fill(t.jobs_ready, &[&group(board.ready)])
            />
            <Stat name=t.queue_running value=group(board.running) />
            <Stat name=t.queue_oldest value=oldest alarm=board.oldest_ms.is_some_and(|ms| ms > OLD_MS) />
            <Stat name=t.jobs_last_minute value=group(board.last_minute) note=fill(t.jobs_hour_rate, &[&a_minute(t, done)]) />
            <Stat name=t.job_list(domain::views::jobs::JobList::Retrying) value=group(board.retrying) />
            <Stat name=t.queue_dead value=group(board.dead) alarm={board.dead > 0} />
        </dl>
        <div class="columns wide-left">
            <Card title=t.jobs_chart_title id="rate">
                {if is_quiet {
                    view! { <Empty glyph=Glyph::Queue title=t.jobs_chart_empty /> }.into_any()
                } else {
                    view! {
                        <Chart
                            title=t.jobs_chart_title.to_owned()
                            summary
                            along=t.minute
                            value_name=t.jobs_done
                            fault_name=t.jobs_died
                            points
                            label_every=LABEL_EVERY
                        />
                    }
                        .into_any()
                }}
            </Card>
            <Card title=t.jobs_in_hand id="in-hand" flush=true>
                <InHand jobs=board.in_hand now=board.now />
            </Card>
        </div>
    }
}

#[component]
fn InHand(jobs: Vec<JobRow>, now: DateTime<Utc>) -> impl IntoView {
    let t = use_texts();
    if jobs.is_empty() {
        return view! { <Empty glyph=Glyph::Check title=t.jobs_idle hint=t.jobs_idle_hint /> }.into_any();
    }
    let rows = jobs
        .into_iter()
        .filter_map(|job| {
            let held = job.held?;
            let since = held.since.map(|since| (now - since).num_milliseconds().max(0));
            let since = since.map_or_else(|| "—".to_owned(), |ms| duration(t, ms));
            let attempt = fill(t.job_attempt, &[&job.attempts.to_string(), &job.max_attempts.to_string()]);
            let lease = fill(t.job_lease, &[&duration(t, held.lease_left_ms.max(0))]);
            Some(view! {
                <li>
                    <div>
                        <p class="row-title">{t.job_kind(&job.kind).map_or_else(|| job.kind.clone(), str::to_owned)}" · "{job.bot_name}</p>
                        <p class="muted">{attempt}" · "{held.worker}" · "{lease}</p>
                    </div>
                    <span class="number">{since}</span>
                </li>
            })
        })
        .collect_view();
    view! { <ul class="rows">{rows}</ul> }.into_any()
}

/// `14:05`
fn clock(at: DateTime<Utc>) -> String {
    format!("{:02}:{:02}", at.hour(), at.minute())
}

/// The mean of an hour, to a tenth: `2.5`.
fn a_minute(t: &Texts, in_an_hour: i64) -> String {
    let tenths = (in_an_hour + 3) / 6;
    format!("{}{}{}", group(tenths / 10), t.decimal_point, tenths % 10)
}
