//! Whose limits are set.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, BotId, Invalid, PlanId, Scope, UserId};

/// A plan, or anything else that limits can be set on. Written as `plan:ID`, `bot:ID`, `model:NAME` or `deployment`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitOwner {
    Plan(PlanId),
    User(UserId),
    Bot(BotId),
    ApiKey(ApiKeyId),
    /// The name by which it is asked for; it need not be offered now.
    Model(String),
    Deployment,
}

const EXPECTED: Invalid = Invalid("a plan, a user, an API key, a bot, a model or the whole deployment");

impl LimitOwner {
    /// Scope and subject under which its limits are kept; `None` for a plan, whose limits hold for each of its users.
    pub fn parts(&self) -> Option<(Scope, String)> {
        Some(match self {
            Self::Plan(_) => return None,
            Self::User(id) => (Scope::User, id.to_string()),
            Self::Bot(id) => (Scope::Bot, id.to_string()),
            Self::ApiKey(id) => (Scope::ApiKey, id.to_string()),
            Self::Model(name) => (Scope::Model, name.clone()),
            Self::Deployment => (Scope::Deployment, String::new()),
        })
    }

    /// The inverse of `parts`.
    pub fn of(scope: Scope, subject: &str) -> Result<Self, Invalid> {
        Ok(match scope {
            Scope::User => Self::User(subject.parse().map_err(|_| EXPECTED)?),
            Scope::Bot => Self::Bot(subject.parse().map_err(|_| EXPECTED)?),
            Scope::ApiKey => Self::ApiKey(subject.parse().map_err(|_| EXPECTED)?),
            Scope::Model if subject.is_empty() => return Err(EXPECTED),
            Scope::Model => Self::Model(subject.to_owned()),
            Scope::Deployment if subject.is_empty() => Self::Deployment,
            Scope::Deployment => return Err(EXPECTED),
        })
    }
}

impl fmt::Display for LimitOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.parts()) {
            (Self::Plan(id), _) => write!(f, "plan:{id}"),
            (_, Some((scope, subject))) if !subject.is_empty() => write!(f, "{}:{subject}", scope.name()),
            _ => f.write_str(Scope::Deployment.name()),
        }
    }
}

impl FromStr for LimitOwner {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, subject) = text.split_once(':').unwrap_or((text, ""));
        if kind == "plan" {
            return subject.parse().map(Self::Plan).map_err(|_| EXPECTED);
        }
        Self::of(Scope::from_name(kind).ok_or(EXPECTED)?, subject)
    }
}

impl From<UserId> for LimitOwner {
    fn from(id: UserId) -> Self {
        Self::User(id)
    }
}

impl TryFrom<String> for LimitOwner {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<LimitOwner> for String {
    fn from(owner: LimitOwner) -> Self {
        owner.to_string()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_owner_is_read_as_it_is_written() {
        let id = Uuid::from_u128(7);
        for owner in [
            LimitOwner::Plan(PlanId(id)),
            LimitOwner::User(UserId(id)),
            LimitOwner::Bot(BotId(id)),
            LimitOwner::ApiKey(ApiKeyId(id)),
            LimitOwner::Model("openai/gpt: 4o".to_owned()),
            LimitOwner::Deployment,
        ] {
            assert_eq!(owner.to_string().parse(), Ok(owner.clone()));
            if let Some((scope, subject)) = owner.parts() {
                assert_eq!(LimitOwner::of(scope, &subject), Ok(owner));
            }
        }
        for text in ["", "plan:", "bot:x", "model:", "deployment:x", "group:1"] {
            assert!(text.parse::<LimitOwner>().is_err(), "{text} was taken");
        }
    }
}
