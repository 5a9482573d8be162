//! The queue as staff see it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{BotId, ConversationId, Invalid, JobId, SearchText, UserId};

/// Which jobs a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobList {
    /// Given up by the queue.
    #[default]
    Dead,
    /// Failed before, and to be tried again.
    Retrying,
    Running,
    /// Not tried yet.
    Waiting,
    /// Dead letters that staff gave up.
    Discarded,
}

impl JobList {
    pub const ALL: [Self; 5] = [
        Self::Dead,
        Self::Retrying,
        Self::Running,
        Self::Waiting,
        Self::Discarded,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Retrying => "retrying",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Discarded => "discarded",
        }
    }
}

impl FromStr for JobList {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|list| list.name() == text)
            .ok_or(Invalid("dead, retrying, running, waiting or discarded"))
    }
}

/// The state of the jobs page; lives in its address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobQuery {
    pub list: JobList,
    pub bot: Option<BotId>,
    /// Part of the last error.
    pub words: SearchText,
    /// `Page::next` of the page before.
    pub after: Option<String>,
}

/// Depth, age and speed of the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobBoard {
    pub now: DateTime<Utc>,
    /// Behind another job of their conversation, never tried.
    pub waiting: i64,
    /// May run as soon as a worker is free, never tried.
    pub ready: i64,
    pub retrying: i64,
    pub running: i64,
    pub dead: i64,
    pub discarded: i64,
    /// Age of the oldest job that has not ended.
    pub oldest_ms: Option<i64>,
    /// Jobs that were finished in the last 60 seconds.
    pub last_minute: i64,
    /// The last 60 minutes, the current one last, empty ones included.
    pub minutes: Vec<JobMinute>,
    /// What runs now, the longest running first; only the first few.
    pub in_hand: Vec<JobRow>,
}

impl JobBoard {
    pub const fn count(&self, list: JobList) -> i64 {
        match list {
            JobList::Dead => self.dead,
            JobList::Retrying => self.retrying,
            JobList::Running => self.running,
            JobList::Waiting => self.waiting + self.ready,
            JobList::Discarded => self.discarded,
        }
    }
}

/// How many jobs ended in one minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobMinute {
    pub minute: DateTime<Utc>,
    pub done: i64,
    /// Became dead letters, and were not put back since.
    pub dead: i64,
}

/// One job. Nothing of what people wrote is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    pub id: JobId,
    pub bot: BotId,
    pub bot_name: String,
    /// What arrived: `message`, `callback_query`…
    pub kind: String,
    pub attempts: i32,
    pub max_attempts: i32,
    pub created: DateTime<Utc>,
    /// When it may run, at the earliest.
    pub run_at: DateTime<Utc>,
    /// Waits behind another job of its conversation.
    pub is_behind: bool,
    pub held: Option<JobHeld>,
    /// When it died.
    pub ended: Option<DateTime<Utc>>,
    pub discarded: Option<DateTime<Utc>>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Who wrote, if we have met them and the reader may know.
    pub user: Option<JobUser>,
    /// The current conversation of its place, for readers who may open it; the texts are there.
    pub conversation: Option<ConversationId>,
    /// The update's structure, with texts, names and numbers left out.
    pub payload: String,
}

/// Which worker has a job in hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobHeld {
    pub worker: String,
    /// `None` when a replica of an older version took it.
    pub since: Option<DateTime<Utc>>,
    /// Until the job goes to another worker unless this one says that it lives; negative when that is overdue.
    pub lease_left_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobUser {
    pub id: UserId,
    pub name: String,
}

/// What staff do with jobs that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobAction {
    /// Back into the queue; one that waits for its next attempt gets it now.
    Retry,
    /// Never to be tried again.
    Discard,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsChanged {
    pub action: JobAction,
    pub changed: i64,
    /// Chosen, but no longer in a state in which this can be done: somebody was faster.
    pub left: i64,
}
