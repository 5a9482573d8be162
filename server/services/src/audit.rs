//! The tamper-evident trail. Each row carries a keyed hash over its fields and the hash of the row before it; the key is derived
//! from the master key, so whoever can only write to the database cannot make a false row fit.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Utc};
use domain::views::{AuditQuery, AuditRow, Page};
use repositories::{
    PgConnection,
    audit::{self as rows, Entry},
};
use serde_json::{Value, json};

use crate::{Actor, Error, KeyRing, Services};

const PAGE: i64 = 50;

/// What was acted on, and how it was called then.
pub(crate) struct Target<'a> {
    pub kind: &'static str,
    pub id: String,
    pub name: &'a str,
}

/// Every action there is, for the filter.
const ACTIONS: &[&str] = &[
    "alias.add",
    "alias.edit",
    "alias.order",
    "alias.remove",
    "api_key.create",
    "api_key.revoke",
    "bot.add",
    "bot.cache",
    "bot.edit",
    "bot.mode",
    "bot.replace_token",
    "bot.restart",
    "bot.start",
    "bot.stop",
    "conversation.read",
    "job.discard",
    "job.retry",
    "limits.boost",
    "limits.reset",
    "limits.set",
    "model.add",
    "model.edit",
    "model.remove",
    "plan.create",
    "plan.limits",
    "plan.models",
    "provider.add",
    "provider.add_key",
    "provider.edit",
    "provider.remove",
    "provider.remove_key",
    "requests.export",
    "staff.create",
    "staff.reset_password",
    "staff.sign_in",
    "staff.sign_out",
    "user.block",
    "user.boost",
    "user.plan",
    "user.reset_limit",
    "user.unblock",
];

/// Reading and checking the trail.
pub struct Audit(pub(crate) Services);

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The chain is whole.
    Whole { rows: u64 },
    /// The first row that does not fit, and why.
    Broken { id: i64, why: &'static str },
}

impl Audit {
    pub async fn list(&self, _actor: &Actor, query: AuditQuery) -> Result<Page<AuditRow>, Error> {
        let before = match query.after.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| Error::Invalid("a page key from a link of this list"))?,
            ),
        };
        let filled = |text: &Option<String>| {
            text.as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let (actor, action, target) = (filled(&query.actor), filled(&query.action), filled(&query.target));
        let filter = rows::Filter {
            actor: actor.as_deref(),
            action: action.as_deref(),
            target: target.as_deref(),
            from: filled(&query.from).as_deref().map(midnight).transpose()?,
            until: filled(&query.to)
                .as_deref()
                .map(midnight)
                .transpose()?
                .map(|last| last + TimeDelta::days(1)),
        };
        let mut db = self.0.db.acquire().await?;
        let mut rows = rows::list(&mut db, &filter, before, PAGE + 1).await?;
        let next = crate::users::cut(&mut rows, PAGE)
            .then(|| rows.last().map(|row| row.id.to_string()))
            .flatten();
        Ok(Page { rows, next })
    }

    /// Known actions, for the filter.
    pub async fn actions(&self, _actor: &Actor) -> Result<Vec<String>, Error> {
        Ok(ACTIONS.iter().map(|&action| action.to_owned()).collect())
    }

    /// Walks the whole chain in blocks; memory stays the same however long it is.
    pub async fn verify(&self) -> Result<Verified, Error> {
        let mut db = self.0.db.begin().await?;
        // Rows and end of one moment, while others go on writing.
        rows::freeze(&mut db).await?;
        let (last, head) = rows::head(&mut db).await?;
        let (mut id, mut hash, mut count) = (0_i64, vec![0_u8; 32], 0_u64);
        loop {
            let block = rows::after(&mut db, id, 1000).await?;
            if block.is_empty() {
                break;
            }
            for row in block {
                if row.id != id + 1 {
                    return Ok(Verified::Broken {
                        id: id + 1,
                        why: "is missing",
                    });
                }
                match hash_of(&self.0.keys, &row, &hash) {
                    None => {
                        return Ok(Verified::Broken {
                            id: row.id,
                            why: "was hashed with a key that BOTDECK_SECRET_KEY does not hold",
                        });
                    }
                    Some(expected) if expected.as_slice() != row.hash => {
                        return Ok(Verified::Broken {
                            id: row.id,
                            why: "was changed, or the row before it was",
                        });
                    }
                    Some(_) => {}
                }
                (id, hash) = (row.id, row.hash);
                count += 1;
            }
        }
        if last > id {
            return Ok(Verified::Broken {
                id: id + 1,
                why: "is missing",
            });
        }
        if last < id || head != hash {
            return Ok(Verified::Broken {
                id,
                why: "does not match the recorded end of the chain",
            });
        }
        Ok(Verified::Whole { rows: count })
    }
}

/// Writes one row inside the caller's transaction.
pub(crate) async fn record(
    services: &Services,
    db: &mut PgConnection,
    actor: &Actor,
    action: &'static str,
    target: Target<'_>,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<(), Error> {
    debug_assert!(ACTIONS.contains(&action), "{action} is not in ACTIONS");
    let (last, previous) = rows::lock_head(db).await?;
    let mut entry = Entry {
        id: last + 1,
        at: services.now(),
        staff_id: actor.staff,
        actor: actor.name.clone(),
        action: action.to_owned(),
        target_kind: target.kind.to_owned(),
        target_id: target.id,
        target_name: target.name.to_owned(),
        before,
        after,
        ip: actor.origin.ip.clone(),
        request_id: actor.origin.request_id.clone(),
        key_id: services.keys.current_id().to_owned(),
        hash: Vec::new(),
    };
    let hash = hash_of(&services.keys, &entry, &previous).ok_or(Error::Internal("no audit key"))?;
    entry.hash = hash.to_vec();
    rows::append(db, &entry).await?;
    Ok(())
}

/// The beginning of a day of UTC.
fn midnight(day: &str) -> Result<DateTime<Utc>, Error> {
    let day: NaiveDate = day.parse().map_err(|_| Error::Invalid("a date such as 2026-11-24"))?;
    // A year that no clock shows would overflow further on.
    if !(1970..=9999).contains(&day.year()) {
        return Err(Error::Invalid("a date such as 2026-11-24"));
    }
    Ok(day.and_time(NaiveTime::MIN).and_utc())
}

/// The keyed hash of a row that follows `previous`; `None` when its key is not on the ring.
fn hash_of(keys: &KeyRing, row: &Entry, previous: &[u8]) -> Option<[u8; 32]> {
    let fields = json!([
        row.id,
        row.at.timestamp_micros(),
        row.staff_id,
        row.actor,
        row.action,
        row.target_kind,
        row.target_id,
        row.target_name,
        row.before,
        row.after,
        row.ip,
        row.request_id,
        row.key_id,
    ]);
    let mut text = String::new();
    canonical(&fields, &mut text);
    let mut hasher = blake3::Hasher::new_keyed(&keys.audit_key(&row.key_id)?);
    hasher.update(previous).update(text.as_bytes());
    Some(*hasher.finalize().as_bytes())
}

/// JSON with sorted keys and no spaces: the same whatever order `jsonb` or a map gave them.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let mut text = String::new();
        canonical(&json!({"b": [1, {"z": null, "a": "\"x\""}], "a": true}), &mut text);
        assert_eq!(text, r#"{"a":true,"b":[1,{"a":"\"x\"","z":null}]}"#);
    }
}
