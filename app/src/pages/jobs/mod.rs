//! The queue: how deep, how old, how fast, what runs, and what failed; retrying and giving up.

pub mod api;
mod figures;
mod list;

use std::{collections::BTreeSet, time::Duration};

use domain::{
    BotId, JobId, Permission,
    views::{
        Page,
        jobs::{JobBoard, JobList, JobRow},
    },
};
use leptos::prelude::*;
use leptos_router::{hooks::use_query_map, location::Url, params::ParamsMap};

use self::{
    api::{ActOnJobs, get_job_board, list_jobs},
    figures::Figures,
    list::Jobs,
};
use super::bots::api::list_bots;
use crate::{
    Answer,
    components::{Button, Choice, ErrorBox, Glyph, PageHead, QueryForm, SearchField, Skeleton, Time, TimeStyle, page},
    i18n::{group, use_texts},
    state::{Line, successes, use_line, use_session, with_filters},
};

const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Of the list. While something in it is unfolded or chosen, the list stays as it is.
const LIST: &str = "job-list";

/// The jobs that are ticked.
type Chosen = RwSignal<BTreeSet<JobId>>;

#[component]
pub fn JobsPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let params = use_query_map();
    let query = Memo::new(move |_| params.with(read));
    let act = ServerAction::<ActOnJobs>::new();
    let done = successes(act);
    let board = Resource::new(move || done.get(), |_| get_job_board());
    let jobs = Resource::new(
        move || (query.get(), done.get()),
        |(query, _)| list_jobs(query.list, query.bot, query.words, query.after),
    );
    // For the filter only: a failure here leaves it out.
    let bots = Resource::new(|| (), |()| list_bots());
    let chosen = Chosen::default();
    Effect::new(move |_| {
        query.track();
        done.track();
        chosen.update(BTreeSet::clear);
    });
    renew(board, jobs, chosen);
    view! {
        <Transition fallback=|| view! { <Skeleton /> }>
            {move || Suspend::new(async move {
                let board = board.await;
                let list = query.read_untracked().list;
                page(
                    board,
                    move |board| {
                        let at = board.now;
                        view! {
                            <PageHead title=t.nav_jobs lead=t.jobs_lead>
                                <span class="muted">{t.jobs_as_of}" "<Time at style=TimeStyle::Second /></span>
                            </PageHead>
                            <Figures board=board.clone() />
                            <Tabs board list />
                        }
                            .into_any()
                    },
                )
            })}
        </Transition>
        <Transition>
            {move || Suspend::new(async move {
                let reads = session.may().await.permits(Permission::ReadJobs);
                let bots = bots.await.map(|board| board.bots).unwrap_or_default();
                let bots: Vec<_> = bots.into_iter().map(|bot| (bot.row.id.to_string(), bot.row.name)).collect();
                let query = query.get();
                reads.then(|| view! { <Filters query bots /> })
            })}
        </Transition>
        <Transition fallback=|| view! { <Skeleton rows=6 /> }>
            {move || Suspend::new(async move {
                let may = session.may().await;
                let jobs = jobs.await;
                let query = query.get_untracked();
                // Whoever may not read it is told so above.
                may.permits(Permission::ReadJobs).then(|| match jobs {
                    Ok(jobs) => view! { <Jobs jobs query may act chosen /> }.into_any(),
                    Err(failure) => view! { <ErrorBox error=failure.0 /> }.into_any(),
                })
            })}
        </Transition>
    }
}

/// Asks again every ten seconds while the page is looked at, and says so when nobody answers.
fn renew(board: Resource<Answer<JobBoard>>, jobs: Resource<Answer<Page<JobRow>>>, chosen: Chosen) {
    let line = use_line();
    let is_in_use = move || {
        let unfolded = document().query_selector(&format!("#{LIST} details[open]"));
        !chosen.with_untracked(BTreeSet::is_empty) || unfolded.is_ok_and(|found| found.is_some())
    };
    Effect::new(move |_| {
        let timer = set_interval_with_handle(
            move || {
                if !document().hidden() {
                    board.refetch();
                    if !is_in_use() {
                        jobs.refetch();
                    }
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
        board.with(|answer| match answer {
            Some(Ok(_)) => line.set(Line::Live),
            Some(Err(_)) => line.set(Line::Cut),
            None => {}
        });
    });
}

/// What the address asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Query {
    list: JobList,
    bot: Option<BotId>,
    words: String,
    after: Option<String>,
}

fn read(params: &ParamsMap) -> Query {
    Query {
        list: params
            .get("state")
            .and_then(|name| name.parse().ok())
            .unwrap_or_default(),
        bot: params.get("bot").and_then(|id| id.parse().ok()),
        words: params.get("q").unwrap_or_default(),
        after: params.get("after").filter(|key| !key.is_empty()),
    }
}

fn address(query: &Query, after: Option<&str>) -> String {
    let filters = [
        ("state", query.list.name().to_owned()),
        ("bot", query.bot.map(|bot| bot.to_string()).unwrap_or_default()),
        ("q", Url::escape(&query.words)),
        ("after", after.map(Url::escape).unwrap_or_default()),
    ];
    with_filters("/jobs", filters)
}

/// The lists, each with how much is in it.
#[component]
fn Tabs(board: JobBoard, list: JobList) -> impl IntoView {
    let t = use_texts();
    let tabs = JobList::ALL
        .map(|tab| {
            let href = format!("/jobs?state={}", tab.name());
            view! {
                <li>
                    <a href=href aria-current=(tab == list).then_some("page")>
                        <span>{t.job_list(tab)}</span>
                        <span class="number">{group(board.count(tab))}</span>
                    </a>
                </li>
            }
        })
        .collect_view();
    view! {
        <nav class="tabs" aria-label=t.jobs_lists>
            <ul>{tabs}</ul>
        </nav>
    }
}

#[component]
fn Filters(query: Query, bots: Vec<(String, String)>) -> impl IntoView {
    let t = use_texts();
    let is_filtered = query.bot.is_some() || !query.words.is_empty();
    let bot = query.bot.map(|bot| bot.to_string()).unwrap_or_default();
    let bots = std::iter::once((String::new(), t.any_bot.to_owned()))
        .chain(bots)
        .collect::<Vec<_>>();
    let unfiltered = format!("/jobs?state={}", query.list.name());
    view! {
        <QueryForm action="/jobs" class="filters" label=t.filters>
            <input type="hidden" name="state" value=query.list.name() />
            <SearchField label=t.job_error id="jobs-q" hint=t.jobs_search_hint value=query.words />
            <Choice label=t.bot name="bot" id="jobs-bot" chosen=bot options=bots />
            <div class="filters-actions">
                <Button glyph=Glyph::Filter>{t.filter_apply}</Button>
                {is_filtered.then(|| view! { <a class="button ghost" href=unfiltered>{t.filter_reset}</a> })}
            </div>
        </QueryForm>
    }
}
