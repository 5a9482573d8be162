//! The queue as staff see it, and what they do with jobs that failed.

mod redact;

use std::collections::HashMap;

use domain::{
    JobId, Permission,
    views::{
        BotTransport, Page,
        jobs::{JobAction, JobBoard, JobList, JobQuery, JobRow, JobUser, JobsChanged},
    },
};
use repositories::{
    PgConnection, counters,
    job_pages::{self, Failed, Filter, Job},
};
use serde_json::{Value, json};

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
    intake::peek,
};

const PAGE: i64 = 50;
/// Of what runs now, shown beside the figures.
const IN_HAND: i64 = 8;
/// The most that one form may change: several pages' worth, so that a form made by hand cannot hold the audit trail for long.
const AT_ONCE: usize = 200;

/// The jobs page.
pub struct JobsService(pub(crate) Services);

impl JobsService {
    pub async fn board(&self, actor: &Actor) -> Result<JobBoard, Error> {
        let mut db = self.0.db.acquire().await?;
        let depth = job_pages::depth(&mut db).await?;
        let running = job_pages::running(&mut db, IN_HAND).await?;
        let running = job_pages::get(&mut db, &running).await?;
        Ok(JobBoard {
            now: self.0.now(),
            waiting: depth.waiting,
            ready: depth.ready,
            retrying: depth.retrying,
            running: depth.running,
            dead: depth.dead,
            discarded: depth.discarded,
            oldest_ms: depth.oldest_ms,
            last_minute: job_pages::last_minute(&mut db).await?,
            minutes: job_pages::minutes(&mut db).await?,
            in_hand: rows(&mut db, actor, running).await?,
        })
    }

    pub async fn list(&self, actor: &Actor, query: JobQuery) -> Result<Page<JobRow>, Error> {
        let filter = Filter {
            list: query.list,
            bot: query.bot,
            words: query.words.as_str(),
            after: crate::parse_cursor(query.after.as_deref())?,
        };
        let mut db = self.0.db.acquire().await?;
        let mut ids = job_pages::ids(&mut db, &filter, PAGE + 1).await?;
        let more = crate::users::cut(&mut ids, PAGE);
        let jobs = job_pages::get(&mut db, &ids).await?;
        let next = jobs.last().filter(|_| more).map(|job| {
            let at = match query.list {
                JobList::Dead | JobList::Discarded => job.ended.unwrap_or(job.created),
                JobList::Retrying => job.run_at,
                JobList::Running | JobList::Waiting => job.created,
            };
            crate::cursor(at, job.id.0)
        });
        Ok(Page {
            rows: rows(&mut db, actor, jobs).await?,
            next,
        })
    }

    /// Retries or discards jobs that failed; each leaves its own row in the trail. What is no longer in a state for it is left
    /// alone and counted.
    pub async fn act(&self, actor: &Actor, ids: &[JobId], action: JobAction) -> Result<JobsChanged, Error> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Err(Error::Invalid("at least one job"));
        }
        if ids.len() > AT_ONCE {
            return Err(Error::Invalid("at most 200 jobs at once"));
        }
        let mut tx = self.0.db.begin().await?;
        let mut changed = 0;
        for job in job_pages::lock_failed(&mut tx, &ids).await? {
            let Some((what, after)) = change(&mut tx, &job, action, self.0.now()).await? else {
                continue;
            };
            let name = format!("{} · {}", job.kind, job.bot_name);
            let target = Target {
                kind: "job",
                id: job.id.to_string(),
                name: &name,
            };
            let before = json!({ "state": job.state, "attempts": job.attempts, "error": job.error });
            record(&self.0, &mut tx, actor, what, target, Some(before), Some(after)).await?;
            changed += 1;
        }
        tx.commit().await.map_err(repositories::Error::from)?;
        if action == JobAction::Retry && changed > 0 {
            self.0.work.notify_one();
            metrics::counter!("botdeck_jobs_put_back_total").increment(u64::try_from(changed).unwrap_or(0));
        }
        if action == JobAction::Discard {
            metrics::counter!("botdeck_jobs_discarded_total").increment(u64::try_from(changed).unwrap_or(0));
        }
        Ok(JobsChanged {
            action,
            changed,
            left: i64::try_from(ids.len()).unwrap_or(i64::MAX) - changed,
        })
    }

    /// For the metrics: how many jobs wait for another attempt.
    pub async fn retrying(&self) -> Result<i64, Error> {
        Ok(job_pages::depth(&mut *self.0.db.acquire().await?).await?.retrying)
    }
}

/// Does it to one job and says what the trail is to say; `None` when it does not fit the job's state.
async fn change(
    tx: &mut PgConnection,
    job: &Failed,
    action: JobAction,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Option<(&'static str, Value)>, Error> {
    Ok(match (action, job.state.as_str()) {
        // It gave its budget back when it died, and sets it aside anew when it runs.
        (JobAction::Retry, "dead" | "discarded") => {
            let state = job_pages::put_back(tx, job.id).await?;
            Some((
                "job.retry",
                json!({ "state": state, "attempts": 1, "error": job.error }),
            ))
        }
        (JobAction::Retry, _) => {
            job_pages::hurry(tx, job.id).await?;
            let after = json!({ "state": "ready at once", "attempts": job.attempts, "error": job.error });
            Some(("job.retry", after))
        }
        (JobAction::Discard, "dead" | "ready") => {
            job_pages::discard(tx, job.id).await?;
            // A dead one gave its budget back when it died.
            counters::settle(tx, job.id.into(), counters::Use::default(), now).await?;
            let after = json!({ "state": "discarded", "attempts": job.attempts, "error": job.error });
            Some(("job.discard", after))
        }
        (JobAction::Discard, _) => None,
    })
}

/// What the reader may know of each job: who wrote only with `users:read`, the way to the texts only with `conversations:read`.
async fn rows(db: &mut PgConnection, actor: &Actor, jobs: Vec<Job>) -> Result<Vec<JobRow>, Error> {
    let mut people = HashMap::new();
    if actor.may(Permission::ReadUsers) {
        for transport in [BotTransport::Telegram, BotTransport::Browser] {
            let of_transport = jobs.iter().filter(|job| job.transport == transport);
            let ids: Vec<i64> = of_transport.filter_map(sender).collect();
            if !ids.is_empty() {
                let found = job_pages::people(db, transport, &ids).await?;
                people.extend(found.into_iter().map(|(id, user)| ((transport, id), user)));
            }
        }
    }
    let places: Vec<_> = jobs.iter().filter_map(place).collect();
    let conversations = if actor.may(Permission::ReadConversations) && !places.is_empty() {
        job_pages::conversations(db, &places).await?
    } else {
        HashMap::new()
    };
    Ok(jobs
        .into_iter()
        .map(|job| {
            let user = sender(&job).and_then(|id| people.get(&(job.transport, id)));
            let conversation = place(&job).and_then(|place| conversations.get(&place));
            JobRow {
                user: user.map(|(id, name)| JobUser {
                    id: *id,
                    name: name.clone(),
                }),
                conversation: conversation.copied(),
                payload: redact::outline(&job.payload),
                id: job.id,
                bot: job.bot,
                bot_name: job.bot_name,
                kind: job.kind,
                attempts: job.attempts,
                max_attempts: job.max_attempts,
                created: job.created,
                run_at: job.run_at,
                is_behind: job.state == "waiting",
                held: job.held,
                ended: job.ended,
                discarded: job.discarded,
                error: job.error,
            }
        })
        .collect())
}

/// Whoever caused the update, as Telegram or the playground numbers people.
fn sender(job: &Job) -> Option<i64> {
    job.payload[&job.kind]["from"]["id"].as_i64()
}

fn place(job: &Job) -> Option<job_pages::Place> {
    let (chat, thread) = peek(&job.payload)?.chat?;
    Some((job.bot, chat, thread))
}
