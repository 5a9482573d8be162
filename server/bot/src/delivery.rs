//! Sending what has been stored. May be run again at any point: a part that has an id is edited, one that may have been sent is
//! looked for, only then is anything sent anew.

use std::{collections::HashSet, time::Duration};

use domain::views::RichText;
use services::{Claimed, Ended, Incoming, KnownIds, Part};

use crate::{
    handlers::{Context, Failure},
    telegram::{Address, OutError},
};

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
    }
}

/// Sends all parts and says how the job ends. `suspect`: parts without an id may have been sent already, by an attempt that was
/// cut short or a preview that was never confirmed.
pub(crate) async fn deliver(context: &Context, parts: Vec<Part>, suspect: bool) -> Result<Ended, Failure> {
    let mut address = address(&context.incoming);
    let chats = context.services.chats();
    let several = parts.len() > 1;
    let mut ids = Vec::with_capacity(parts.len());
    for (number, part) in parts.into_iter().enumerate() {
        let Some(body) = part.body else { continue };
        let id = match deliver_part(context, &mut address, part.message_id, &body, suspect).await {
            Ok(id) => id,
            Err(OutError::Blocked) => {
                chats
                    .set_closed(context.bot.id, context.incoming.chat_external_id, true)
                    .await?;
                return Ok(Ended::Done);
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
            chats.sent(context.job.id, number, &[id]).await?;
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
        match context.out.edit(address, id, body, true).await {
            Ok(()) => return Ok(id),
            // Deleted by the user meanwhile: the answer still has to arrive.
            Err(OutError::NoMessage) => {}
            Err(error) => return Err(error),
        }
    } else if suspect && let Some(id) = find(context, address, body).await? {
        return Ok(id);
    }
    match context.out.send(address, body).await {
        Err(OutError::Undecided) => {
            metrics::counter!("botdeck_sends_undecided_total").increment(1);
            match find(context, address, body).await? {
                Some(id) => Ok(id),
                None => context.out.send(address, body).await,
            }
        }
        Err(OutError::Moved(chat)) => {
            address.chat_id = chat;
            context.out.send(address, body).await
        }
        // An entity Telegram does not like must not cost the user the answer.
        Err(OutError::Gone(_)) if !body.entities.is_empty() => {
            let plain = RichText {
                text: body.text.clone(),
                entities: Vec::new(),
            };
            context.out.send(address, &plain).await
        }
        other => other,
    }
}

/// Looks for a message whose id was never learnt. Telegram numbers the messages of all private chats of a bot in one row, so
/// first only ids are tried that no message we know of has, in whatever chat; servers that number each chat for itself get a
/// second look at the ids that are free in this chat.
async fn find(context: &Context, address: &Address, body: &RichText) -> Result<Option<i64>, OutError> {
    let known = context.services.chats().known_ids(&context.incoming).await;
    let KnownIds { in_chat, anywhere } = known.map_err(|_| OutError::Retry(Duration::from_secs(1)))?;
    let mut found = None;
    for taken in [anywhere, in_chat] {
        let taken: HashSet<i64> = taken.into_iter().collect();
        found = context
            .out
            .find_lost(address, context.incoming.message_id, &taken, body)
            .await?;
        if found.is_some() {
            break;
        }
    }
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
