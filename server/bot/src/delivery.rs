//! Sending what has been stored. May be run again at any point: a part that has an id is edited, one that may have been sent is
//! looked for, only then is anything sent anew.

use std::{collections::HashSet, time::Duration};

use domain::views::RichText;
use services::{Claimed, Ended, Incoming, Part, Urgency};
use tokio::time::Instant;

use crate::{
    handlers::{Context, Failure},
    telegram::{Address, OutError},
};

/// When the database could not be asked.
const SOON: Duration = Duration::from_secs(1);
/// A call to Telegram takes less than this as a rule, and noting the id of its message a moment more.
const OTHERS_SETTLE: Duration = Duration::from_millis(1500);
/// What is looked for stays in mind only here: a search is not put off for a flood limit or a failure that has passed by then.
const SEARCH_PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_POSTPONEMENT: Duration = Duration::from_secs(300);

/// Where answers to a message go.
pub(crate) fn address(incoming: &Incoming) -> Address {
    let private = matches!(incoming.chat_kind.as_str(), "private" | "browser");
    Address {
        chat_id: incoming.chat_external_id,
        thread_id: (incoming.thread_id != 0).then_some(incoming.thread_id),
        // In a group it must be seen who is answered; in a private chat it would be noise.
        reply_to: (!private).then_some(incoming.message_id),
        private,
        urgency: Urgency::Answer,
        ours_until: None,
    }
}

/// How long a lease that was seen to hold is relied on: heartbeats, every third of its time, have left it twice as long at least.
/// Whoever is stopped for longer (a signal, a paused machine) asks before it sends anything more.
const RELIED_ON: Duration = Duration::from_secs(3);

/// Asks whether the job is still ours, if that was not just seen; false when it is somebody else's.
pub(crate) async fn still_ours(context: &Context, address: &mut Address) -> Result<bool, services::Error> {
    if !address.is_stale() {
        return Ok(true);
    }
    let asked = Instant::now();
    let token = context.job.token;
    let kept = context.services.queue().heartbeat(&[token]).await?;
    address.ours_until = Some(asked + RELIED_ON);
    Ok(kept.contains(&token))
}

/// Sends all parts and says how the job ends. `seen`: a moment not later than when the lease was seen to hold, if that was just now.
/// `suspect`: parts without an id may have been sent already, by an attempt that was cut short or a preview that was never
/// confirmed.
pub(crate) async fn deliver(
    context: &Context,
    parts: Vec<Part>,
    seen: Option<Instant>,
    suspect: bool,
) -> Result<Ended, Failure> {
    let address = Address {
        ours_until: Some(seen.map_or_else(Instant::now, |seen| seen + RELIED_ON)),
        ..address(&context.incoming)
    };
    deliver_at(context, address, parts, suspect).await
}

/// The same for what the bot says by itself: under pressure it lets answers pass.
pub(crate) async fn deliver_reply(
    context: &Context,
    parts: Vec<Part>,
    seen: Instant,
    suspect: bool,
) -> Result<Ended, Failure> {
    let address = Address {
        urgency: Urgency::Command,
        ours_until: Some(seen + RELIED_ON),
        ..address(&context.incoming)
    };
    deliver_at(context, address, parts, suspect).await
}

async fn deliver_at(
    context: &Context,
    mut address: Address,
    parts: Vec<Part>,
    suspect: bool,
) -> Result<Ended, Failure> {
    let chats = context.services.chats();
    let several = parts.len() > 1;
    let mut ids = Vec::with_capacity(parts.len());
    for (number, part) in parts.into_iter().enumerate() {
        let Some(body) = part.body else {
            // Of a longer text that this one has replaced.
            let Some(id) = part.message_id else { continue };
            if !still_ours(context, &mut address).await? {
                return Err(Failure::LeaseLost);
            }
            if let Err(OutError::Retry(after)) = context.out.delete(&address, id).await {
                return Ok(Ended::Retry {
                    after: Some(postponed(after, context.job.attempt)),
                    error: "a message cannot be deleted now".to_owned(),
                });
            }
            continue;
        };
        let mut sent = deliver_part(context, &mut address, part.message_id, &body, suspect).await;
        if let Err(OutError::Moved(chat)) = sent {
            chats.moved(context.bot.id, address.chat_id, chat).await?;
            address.chat_id = chat;
            sent = deliver_part(context, &mut address, None, &body, false).await;
        }
        let id = match sent {
            Ok(id) => id,
            Err(OutError::Blocked) => {
                chats
                    .set_closed(context.bot.id, context.incoming.chat_external_id, true)
                    .await?;
                return Ok(Ended::Done);
            }
            Err(OutError::Stale) => return Err(Failure::LeaseLost),
            // Nobody to tell, now or later. Kept as a dead letter all the same: another bot's token may be why nobody is there.
            Err(error @ OutError::NoChat) => {
                chats
                    .set_closed(context.bot.id, context.incoming.chat_external_id, true)
                    .await?;
                return Ok(Ended::Dead {
                    error: error.to_string(),
                });
            }
            Err(OutError::Gone(reason)) => return Ok(Ended::Dead { error: reason }),
            Err(OutError::Retry(after)) => {
                return Ok(Ended::Retry {
                    after: Some(postponed(after, context.job.attempt)),
                    error: "the chat cannot be written to now".to_owned(),
                });
            }
            Err(error) => {
                return Ok(Ended::Retry {
                    after: None,
                    error: error.to_string(),
                });
            }
        };
        ids.push(id);
        if several {
            chats.sent(&context.job, number, &[id]).await?;
        }
    }
    Ok(Ended::Delivered(ids))
}

async fn deliver_part(
    context: &Context,
    address: &mut Address,
    known: Option<i64>,
    body: &RichText,
    suspect: bool,
) -> Result<i64, OutError> {
    if let Some(id) = known {
        match edit(context, address, id, body).await {
            Ok(()) => return Ok(id),
            // Deleted by the user meanwhile: the answer still has to arrive.
            Err(OutError::NoMessage) => {}
            Err(error) => return Err(error),
        }
    } else if suspect && let Some(id) = find(context, address, body, Instant::now()).await? {
        return Ok(id);
    }
    match send(context, address, body).await {
        Err(OutError::Undecided) => {
            let lost = Instant::now();
            // What others of the bot are sending just now gets its ids noted meanwhile, and is not taken for ours.
            tokio::time::sleep(OTHERS_SETTLE).await;
            match find(context, address, body, lost).await? {
                Some(id) => Ok(id),
                None => send(context, address, body).await,
            }
        }
        // An entity Telegram does not like must not cost the user the answer.
        Err(OutError::Gone(_)) if !body.entities.is_empty() => {
            let plain = RichText {
                text: body.text.clone(),
                entities: Vec::new(),
            };
            send(context, address, &plain).await
        }
        other => other,
    }
}

/// Sends while the job is ours; `Stale` when it is not.
async fn send(context: &Context, address: &mut Address, body: &RichText) -> Result<i64, OutError> {
    loop {
        proven(context, address).await?;
        match context.out.send(address, body).await {
            Err(OutError::Stale) => {}
            other => return other,
        }
    }
}

/// Changes a message while the job is ours: an answer that is done elsewhere may have been replaced by a newer one since.
async fn edit(context: &Context, address: &mut Address, id: i64, body: &RichText) -> Result<(), OutError> {
    loop {
        proven(context, address).await?;
        match context.out.edit(address, id, body, true).await {
            Err(OutError::Stale) => {}
            other => return other,
        }
    }
}

async fn proven(context: &Context, address: &mut Address) -> Result<(), OutError> {
    match still_ours(context, address).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(OutError::Stale),
        Err(_) => Err(OutError::Retry(SOON)),
    }
}

/// Looks for a message whose id was never learnt, and which was not sent after `lost`.
async fn find(
    context: &Context,
    address: &mut Address,
    body: &RichText,
    lost: Instant,
) -> Result<Option<i64>, OutError> {
    let begun = Instant::now();
    let mut tried = HashSet::new();
    let found = loop {
        // What another worker has sent meanwhile is not to be taken for ours.
        proven(context, address).await?;
        let known = context
            .services
            .chats()
            .known_ids(context.job.id, &context.incoming, lost.elapsed())
            .await;
        let known = known.map_err(|_| OutError::Retry(SOON))?;
        let before = tried.len();
        let found = match context.out.find_lost(address, &known, &mut tried, body).await {
            Err(OutError::Stale) => continue,
            Err(OutError::Retry(wait)) if begun.elapsed() + wait < SEARCH_PATIENCE => {
                tokio::time::sleep(wait).await;
                continue;
            }
            other => other?,
        };
        if found.is_some() || tried.len() == before {
            break found;
        }
    };
    metrics::counter!("botdeck_lost_sends_total", "found" => if found.is_some() { "yes" } else { "no" }).increment(1);
    Ok(found)
}

/// Doubles with every attempt up to five minutes, so that the attempts of one job outlast an outage of ten minutes; never less than
/// was asked for.
fn postponed(after: Duration, attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(16);
    after.max((after * (1 << doublings)).min(LONGEST_POSTPONEMENT))
}

/// True when an earlier attempt at this job may have sent something.
pub(crate) fn tried_before(job: &Claimed) -> bool {
    job.attempt > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_attempts_outlast_ten_minutes_and_a_longer_wait_is_kept() {
        let five = Duration::from_secs(5);
        let waits: Vec<u64> = (1..8).map(|attempt| postponed(five, attempt).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300]);
        assert_eq!(postponed(Duration::from_secs(1000), 3).as_secs(), 1000);
    }
}
