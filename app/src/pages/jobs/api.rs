//! The queue, and what staff do with jobs that failed.

use domain::{
    BotId, JobId, Permission,
    views::{
        Page,
        jobs::{JobAction, JobBoard, JobList, JobRow, JobsChanged},
    },
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (GetJobBoard::PATH, Some(Permission::ReadJobs)),
    (ListJobs::PATH, Some(Permission::ReadJobs)),
    (ActOnJobs::PATH, Some(Permission::WriteJobs)),
];

#[server(prefix = "/api/fn", endpoint = "jobs/board", input = GetUrl)]
pub async fn get_job_board() -> Answer<JobBoard> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadJobs).await?;
    Ok(ssr::services()?.jobs_board().board(&actor).await?)
}

#[server(prefix = "/api/fn", endpoint = "jobs/list", input = GetUrl)]
pub async fn list_jobs(
    list: JobList,
    bot: Option<BotId>,
    words: String,
    after: Option<String>,
) -> Answer<Page<JobRow>> {
    use domain::views::jobs::JobQuery;

    use crate::ssr;
    let actor = ssr::require(Permission::ReadJobs).await?;
    let query = JobQuery {
        list,
        bot,
        words: words.parse()?,
        after,
    };
    Ok(ssr::services()?.jobs_board().list(&actor, query).await?)
}

/// `ids` are the jobs that were ticked; with `all`, those of the whole `page` are meant, which needs no script to say.
#[server(prefix = "/api/fn", endpoint = "jobs/act")]
pub async fn act_on_jobs(
    ids: Option<Vec<JobId>>,
    all: Option<bool>,
    page: Option<Vec<JobId>>,
    action: JobAction,
) -> Answer<JobsChanged> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteJobs).await?;
    let chosen = if all == Some(true) { page } else { ids };
    let board = ssr::services()?.jobs_board();
    Ok(board.act(&actor, &chosen.unwrap_or_default(), action).await?)
}
