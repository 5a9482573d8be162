//! Today at a glance; renews itself while somebody looks.

pub mod api;

use std::time::Duration;

use domain::{
    ErrorCode, Permission,
    views::{BotRow, BotTransport, CodeCount, Overview, QueueState, SetupState},
};
use leptos::prelude::*;

use self::api::get_overview;
use super::{bots::BotState, setup::api::get_setup_state};
use crate::{
    Answer,
    components::{
        Card, Chart, ChartPoint, Empty, Glyph, Icon, Notice, PageHead, Skeleton, Stat, Time, TimeStyle, Tone, page,
    },
    i18n::{duration, fill, group, money, use_texts},
    state::{Line, May, use_line, use_session},
};

const RENEW_EVERY: Duration = Duration::from_secs(10);

#[component]
pub fn OverviewPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let figures = Resource::new(|| (), |()| get_overview());
    let setup = Resource::new(|| (), |()| get_setup_state());
    renew(figures);
    let last = StoredValue::new(None);
    view! {
        <Transition fallback=|| view! { <Skeleton /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                let setup = setup.await.ok();
                let figures = kept(figures.await, last.get_value());
                last.set_value(figures.as_ref().ok().cloned());
                page(
                    figures,
                    move |figures| {
                        let at = figures.now;
                        let playground = figures.bots.iter().find(|bot| bot.transport == BotTransport::Browser).cloned();
                        view! {
                            <PageHead title=t.nav_overview>
                                <span class="muted">{t.today_utc}" "<Time at style=TimeStyle::Second /></span>
                            </PageHead>
                            {setup.filter(is_unfinished).map(|setup| view! { <LeftToDo setup playground=playground.clone() may=may.clone() /> })}
                            <Figures figures may />
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
    }
}

/// What is shown: the last figures while the server does not answer. They say of when they are, and the top bar says why they stand
/// still. Who may no longer see them does not.
fn kept(answer: Answer<Overview>, last: Option<Overview>) -> Answer<Overview> {
    match (answer, last) {
        (Err(failure), Some(last)) if failure.0.code == ErrorCode::Internal => Ok(last),
        (answer, _) => answer,
    }
}

/// Asks again every ten seconds while the page is looked at, and says so when nobody answers.
fn renew(figures: Resource<Answer<Overview>>) {
    let line = use_line();
    Effect::new(move |_| {
        let timer = set_interval_with_handle(
            move || {
                if !document().hidden() {
                    figures.refetch();
                }
            },
            RENEW_EVERY,
        );
        on_cleanup(move || {
            if let Ok(timer) = timer {
                timer.clear();
            }
            line.set(Line::Still);
        });
    });
    Effect::new(move |_| {
        figures.with(|answer| match answer {
            Some(Ok(_)) => line.set(Line::Live),
            Some(Err(_)) => line.set(Line::Cut),
            None => {}
        });
    });
}

fn is_unfinished(setup: &SetupState) -> bool {
    !setup.has_telegram_bot || !setup.has_model_key
}

#[component]
fn LeftToDo(setup: SetupState, playground: Option<BotRow>, may: May) -> impl IntoView {
    let t = use_texts();
    let step = |done: bool, title: &'static str, text: String, link: Option<(&'static str, String)>| {
        view! {
            <li class:done=done>
                <span class="step-mark">
                    {if done {
                        view! { <Icon glyph=Glyph::Check /> }.into_any()
                    } else {
                        view! { <i class="step-open"></i> }.into_any()
                    }}
                    <span class="visually-hidden">{if done { t.step_done } else { t.step_open }}</span>
                </span>
                <div>
                    <p class="step-title">{title}</p>
                    <p class="muted">{text}</p>
                </div>
                {link
                    .map(|(words, href)| {
                        let class = if done { "button small" } else { "button small main" };
                        view! {
                            <a class=class href=href>
                                {words}
                            </a>
                        }
                    })}
            </li>
        }
    };
    let bots = may
        .permits(Permission::WriteSecrets)
        .then_some((t.todo_bot_link, "/bots#add".to_owned()));
    let plans = may
        .permits(Permission::ReadLimits)
        .then_some((t.todo_limits_link, "/plans".to_owned()));
    let has_talked = playground.as_ref().is_some_and(|bot| bot.last_update.is_some());
    let talk = playground
        .filter(|_| may.permits(Permission::UsePlayground))
        .map(|bot| (t.todo_playground_link, format!("/bots/{}/playground", bot.id)));
    let model = if setup.has_model_key {
        fill(t.todo_model_done, &[&setup.model])
    } else {
        t.todo_model_text.to_owned()
    };
    view! {
        <Card title=t.todo_title id="todo">
            <ol class="steps">
                {step(has_talked, t.todo_playground, t.todo_playground_text.to_owned(), talk)}
                {step(setup.has_model_key, t.todo_model, model, None)}
                {step(setup.has_telegram_bot, t.todo_bot, t.todo_bot_text.to_owned(), bots)}
                {step(false, t.todo_limits, t.todo_limits_text.to_owned(), plans)}
            </ol>
        </Card>
    }
}

#[component]
fn Figures(figures: Overview, may: May) -> impl IntoView {
    let t = use_texts();
    let share = if figures.messages > 0 {
        let tenths = figures.errors.saturating_mul(1000) / figures.messages;
        fill(
            t.errors_share,
            &[&format!("{}{}{} %", tenths / 10, t.decimal_point, tenths % 10)],
        )
    } else {
        String::new()
    };
    let answer = figures.p50_ms.map_or_else(|| "—".to_owned(), |ms| duration(t, ms));
    let slow = figures
        .p95_ms
        .map(|ms| fill(t.p95, &[&duration(t, ms)]))
        .unwrap_or_default();
    let (messages, errors) = figures.hours.iter().fold((0, 0), |(messages, errors), hour| {
        (messages + hour.messages, errors + hour.errors)
    });
    let summary = fill(t.chart_summary, &[&group(messages), &group(errors)]);
    let points = figures
        .hours
        .iter()
        .map(|hour| ChartPoint {
            label: hour.hour.format_hour(),
            value: hour.messages,
            faults: hour.errors,
        })
        .collect::<Vec<_>>();
    let is_quiet = messages == 0 && errors == 0;
    let reads_jobs = may.permits(Permission::ReadJobs);
    view! {
        {(!figures.redis_up)
            .then(|| {
                view! {
                    <Notice tone=Tone::Warn glyph=Glyph::Warning>
                        <p>{t.redis_down}</p>
                    </Notice>
                }
            })}
        <dl class="stats">
            <Stat name=t.stat_messages value=group(figures.messages) />
            <Stat name=t.stat_users value=group(figures.active_users) />
            <Stat name=t.stat_tokens value=group(figures.tokens) />
            <Stat
                name=t.stat_cost
                value=money(figures.cost)
                note=fill(t.cost_month, &[&money(figures.cost_month)])
            />
            <Stat name=t.stat_answer value=answer note=slow />
            <Stat name=t.stat_errors value=group(figures.errors) note=share alarm={figures.errors > 0} />
        </dl>
        <div class="columns wide-left">
            <Card title=t.chart_title id="chart">
                {if is_quiet {
                    view! { <Empty glyph=Glyph::Chat title=t.chart_empty hint=t.chart_empty_hint /> }.into_any()
                } else {
                    view! {
                        <Chart
                            title=t.chart_title.to_owned()
                            summary
                            along=t.hour
                            value_name=t.chart_messages
                            fault_name=t.chart_errors
                            points
                        />
                    }
                        .into_any()
                }}
            </Card>
            <Card title=t.errors_title id="errors">
                <ErrorsByCode codes=figures.errors_by_code />
            </Card>
        </div>
        <div class="columns wide-left">
            <Card title=t.nav_bots id="bots" flush=true>
                <BotList bots=figures.bots may />
            </Card>
            <Card title=t.queue_title id="queue">
                <Queue queue=figures.queue reads=reads_jobs />
            </Card>
        </div>
    }
}

#[component]
fn ErrorsByCode(codes: Vec<CodeCount>) -> impl IntoView {
    let t = use_texts();
    if codes.is_empty() {
        return view! { <Empty glyph=Glyph::Check title=t.errors_none /> }.into_any();
    }
    let most = codes.iter().map(|code| code.count).max().unwrap_or(1).max(1);
    let rows = codes
        .into_iter()
        .map(|code| {
            let width = (code.count.saturating_mul(100) / most).clamp(2, 100);
            let words = t.error_by_name(&code.code).unwrap_or_default();
            view! {
                <li>
                    <div class="rank-line">
                        <code>{code.code}</code>
                        <span class="number">{group(code.count)}</span>
                    </div>
                    <svg class="bar rank" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
                        <rect class="bar-used" x="0" y="0" width=width.to_string() height="6" />
                    </svg>
                    <p class="muted">{words}</p>
                </li>
            }
        })
        .collect_view();
    view! { <ul class="ranks">{rows}</ul> }.into_any()
}

#[component]
fn Queue(queue: QueueState, reads: bool) -> impl IntoView {
    let t = use_texts();
    let oldest = queue.oldest_ms.map_or_else(|| "—".to_owned(), |ms| duration(t, ms));
    let row = |name: &'static str, value: String, alarm: bool, list: &'static str| {
        let value = if reads {
            view! { <a href=format!("/jobs?state={list}")>{value}</a> }.into_any()
        } else {
            value.into_any()
        };
        view! {
            <div class:alarm=alarm>
                <dt>{name}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    view! {
        <dl class="facts">
            {row(t.queue_waiting, group(queue.waiting), false, "waiting")}
            {row(t.queue_running, group(queue.running), false, "running")}
            {row(t.queue_oldest, oldest, queue.oldest_ms.is_some_and(|ms| ms > 60_000), "waiting")}
            {row(t.queue_dead, group(queue.dead), queue.dead > 0, "dead")}
        </dl>
    }
}

#[component]
fn BotList(bots: Vec<BotRow>, may: May) -> impl IntoView {
    let t = use_texts();
    if bots.is_empty() {
        return view! { <Empty glyph=Glyph::Bots title=t.bots_empty hint=t.bots_empty_hint /> }.into_any();
    }
    let may_talk = may.permits(Permission::UsePlayground);
    let rows = bots
        .into_iter()
        .map(|bot| {
            let talks = may_talk && bot.transport == BotTransport::Browser;
            let today = fill(
                t.messages_today,
                &[&group(bot.messages_today), t.messages(bot.messages_today)],
            );
            view! {
                <li>
                    <div>
                        <p class="row-title">{bot.name.clone()}</p>
                        <p class="muted">{bot.model.clone()}" · "{today}</p>
                    </div>
                    <BotState bot=bot.clone() />
                    {talks
                        .then(|| {
                            view! {
                                <a class="button small" href=format!("/bots/{}/playground", bot.id)>
                                    <Icon glyph=Glyph::Chat />
                                    <span>{t.playground}</span>
                                </a>
                            }
                        })}
                </li>
            }
        })
        .collect_view();
    view! { <ul class="rows">{rows}</ul> }.into_any()
}

trait FormatHour {
    fn format_hour(&self) -> String;
}

impl FormatHour for chrono::DateTime<chrono::Utc> {
    fn format_hour(&self) -> String {
        use chrono::Timelike;
        format!("{:02}:00", self.hour())
    }
}

#[cfg(test)]
mod tests {
    use domain::{Money, views::QueueState};

    use super::*;

    #[test]
    fn a_short_absence_of_the_server_leaves_the_figures_there() {
        let figures = Overview {
            now: chrono::DateTime::UNIX_EPOCH,
            messages: 7,
            active_users: 1,
            tokens: 1,
            cost: Money::ZERO,
            cost_month: Money::ZERO,
            p50_ms: None,
            p95_ms: None,
            errors: 0,
            hours: Vec::new(),
            errors_by_code: Vec::new(),
            queue: QueueState::default(),
            redis_up: true,
            bots: Vec::new(),
        };
        let failed = |code: ErrorCode| Err(code.into());
        assert_eq!(
            kept(failed(ErrorCode::Internal), Some(figures.clone())),
            Ok(figures.clone())
        );
        assert_eq!(kept(failed(ErrorCode::Internal), None), failed(ErrorCode::Internal));
        for gone in [ErrorCode::SignedOut, ErrorCode::Forbidden] {
            assert_eq!(kept(failed(gone), Some(figures.clone())), failed(gone));
        }
    }
}
