//! How alike questions to a bot were, as its page shows it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::requests::Named;
use crate::{BotCache, BotId, ComparedBy, Likeness, Threshold, UserId};

/// A question and what came nearest to it. Both are words of people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookRow {
    pub at: DateTime<Utc>,
    pub user: Named<UserId>,
    pub question: String,
    pub near_user: UserId,
    pub near_question: String,
    pub likeness: Likeness,
    /// It got the answer of the other one.
    pub hit: bool,
}

/// What was compared of late, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NearBoard {
    pub now: DateTime<Utc>,
    pub bot: BotId,
    pub bot_name: String,
    pub cache: BotCache,
    pub compared_by: ComparedBy,
    pub looks: Vec<LookRow>,
}

impl NearBoard {
    /// How many of the questions would get another one's answer.
    pub fn hits_from(&self, threshold: Threshold) -> usize {
        let reaches = |look: &&LookRow| look.likeness >= threshold.likeness();
        self.looks.iter().filter(reaches).count()
    }
}
