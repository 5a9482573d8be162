//! Sending what has been stored, by as many attempts as it takes, so that each part stands in the chat once.
//!
//! Parts are sent one after another, and each gets its id noted before the next. So of an answer that was cut short:
//! - a part with an id stands there: it is edited;
//! - the first part without an id *may* stand there, unless the attempt before ended knowing that nothing was sent (a refused
//!   connection, a pause that Telegram asked for, a refusal): that is noted, and then it is just sent;
//! - the parts after that were never begun.
//!
//! A message that may stand there is looked for: its text is given to ids that no message we know of has, and Telegram takes it for a
//! message of the bot in this chat only. Each id that was not it is noted with the part. After sixteen ids, over all
//! attempts, it is taken as not sent, and is sent: that may be lost in turn, and is looked for from the beginning, since it may have got
//! an id that was free before. A message found like that says already what it is to say, unless it is a preview;
//! if it did not, something was overwritten: what another job has sent in the same moment gets its text back and the search goes on;
//! what nobody knows of is counted apart. Nothing is looked for when the
//! ids of later messages may be forgotten (`Chats::resume`).

use std::{collections::HashSet, time::Duration};

use domain::views::RichText;
use services::{Claimed, Ended, Incoming, Lost, Owner, Part, Urgency};
use tokio::time::Instant;

use crate::{
    handlers::{Context, Failure},
    telegram::{Address, OutError},
};

/// When the database could not be asked.
const SOON: Duration = Duration::from_secs(1);
/// A call to Telegram takes less than this as a rule, and noting the id of its message a moment more.
const OTHERS_SETTLE: Duration = Duration::from_millis(1500);
/// While others in the chat are sending something, it is waited so long for them to note its id, however slow the database is.
const OTHERS_NOTE: Duration = Duration::from_secs(15);
/// A search is not put off for a flood limit or a failure that has passed by then: the ids it looks at grow stale.
const SEARCH_PATIENCE: Duration = Duration::from_secs(30);
/// After an attempt at whose end it is unknown what was sent.
const UNDECIDED: Duration = Duration::from_secs(5);
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
pub(crate) async fn deliver(context: &Context, parts: Vec<Part>, seen: Option<Instant>) -> Result<Ended, Failure> {
    let address = Address {
        ours_until: Some(seen.map_or_else(Instant::now, |seen| seen + RELIED_ON)),
        ..address(&context.incoming)
    };
    deliver_at(context, address, parts).await
}

/// The same for what the bot says by itself: under pressure it lets answers pass.
pub(crate) async fn deliver_reply(context: &Context, parts: Vec<Part>, seen: Instant) -> Result<Ended, Failure> {
    let address = Address {
        urgency: Urgency::Command,
        ours_until: Some(seen + RELIED_ON),
        ..address(&context.incoming)
    };
    deliver_at(context, address, parts).await
}

async fn deliver_at(context: &Context, mut address: Address, parts: Vec<Part>) -> Result<Ended, Failure> {
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
        let mut lost = part.lost;
        let mut sent = deliver_part(context, &mut address, number, part.message_id, &body, &mut lost).await;
        if let Err(OutError::Moved(chat)) = sent {
            chats.moved(context.bot.id, address.chat_id, chat).await?;
            address.chat_id = chat;
            lost = Lost::default();
            sent = deliver_part(context, &mut address, number, None, &body, &mut lost).await;
        }
        if sent.is_err() && !lost.maybe_sent {
            // If that cannot be noted, the next attempt looks for what is not there.
            let _ = chats.unsent(&context.job).await;
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
                    after: Some(postponed(UNDECIDED, context.job.attempt)),
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

/// `lost` says afterwards whether the part may stand in the chat although it has no id.
async fn deliver_part(
    context: &Context,
    address: &mut Address,
    number: usize,
    known: Option<i64>,
    body: &RichText,
    lost: &mut Lost,
) -> Result<i64, OutError> {
    if let Some(id) = known {
        match edit(context, address, id, body).await {
            Ok(()) => return Ok(id),
            // Deleted by the user meanwhile: the answer still has to arrive.
            Err(OutError::NoMessage) => {}
            Err(error) => return Err(error),
        }
    } else if lost.maybe_sent
        && let Some(id) = find(context, address, number, body, lost, Instant::now()).await?
    {
        return Ok(id);
    }
    let mut sent = send_anew(context, address, number, body, lost).await;
    if sent == Err(OutError::Undecided) {
        let at = Instant::now();
        (lost.maybe_sent, lost.previewed) = (true, false);
        // What others of the bot are sending just now gets its ids noted meanwhile, and is not taken for ours.
        tokio::time::sleep(OTHERS_SETTLE).await;
        if let Some(id) = find(context, address, number, body, lost, at).await? {
            return Ok(id);
        }
        sent = send_anew(context, address, number, body, lost).await;
    }
    // An entity Telegram does not like must not cost the user the answer.
    if matches!(sent, Err(OutError::Gone(_))) && !body.entities.is_empty() {
        let plain = RichText {
            text: body.text.clone(),
            entities: Vec::new(),
        };
        sent = send(context, address, &plain).await;
    }
    lost.maybe_sent |= sent == Err(OutError::Undecided);
    sent
}

/// Sends what was not found. What is sent now may get an id that was tried before it was there.
async fn send_anew(
    context: &Context,
    address: &mut Address,
    number: usize,
    body: &RichText,
    lost: &mut Lost,
) -> Result<i64, OutError> {
    if !lost.tried.is_empty() {
        lost.tried.clear();
        let noted = context.services.chats().tried(context.job.id, number, &[], &[]).await;
        noted.map_err(|_| OutError::Retry(SOON))?;
    }
    send(context, address, body).await
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

/// Looks for a message whose id was never learnt, and which was not sent after `at`. When there is none, it was not sent.
async fn find(
    context: &Context,
    address: &mut Address,
    number: usize,
    body: &RichText,
    lost: &mut Lost,
    at: Instant,
) -> Result<Option<i64>, OutError> {
    let begun = Instant::now();
    let chats = context.services.chats();
    let mut tried: HashSet<i64> = lost.tried.iter().copied().collect();
    restore(context, address, &std::mem::take(&mut lost.trying)).await?;
    let found = loop {
        // What another worker has sent meanwhile is not to be taken for ours.
        proven(context, address).await?;
        let known = chats.known_ids(context.job.id, &context.incoming, at.elapsed()).await;
        let known = known.map_err(|_| OutError::Retry(SOON))?;
        let next = context.out.next_to_try(&known, &tried);
        if !next.is_empty() {
            // Before one of them is overwritten: who comes after this worker has to know.
            let noted = chats.tried(context.job.id, number, &lost.tried, &next).await;
            noted.map_err(|_| OutError::Retry(SOON))?;
        }
        let found = context.out.find_lost(address, &known, &next, &mut tried, body).await;
        let more = tried.len() > lost.tried.len();
        if more {
            lost.tried = tried.iter().copied().collect();
            // If that cannot be noted, the next attempt tries them again.
            let _ = chats.tried(context.job.id, number, &lost.tried, &next).await;
        }
        match found {
            Err(OutError::Stale) => {}
            Err(OutError::Retry(wait)) if begun.elapsed() + wait < SEARCH_PATIENCE => tokio::time::sleep(wait).await,
            Err(error) => return Err(error),
            Ok(None) if more => {}
            Ok(Some(found)) if !found.as_it_was && gave_back(context, address, found.id, begun).await? => {
                tried.insert(found.id);
            }
            Ok(found) => break found,
        }
    };
    let label = match &found {
        None => "no",
        Some(found) if found.as_it_was || lost.previewed => "yes",
        Some(_) => "overwrote",
    };
    metrics::counter!("botdeck_lost_sends_total", "found" => label).increment(1);
    lost.maybe_sent = false;
    Ok(found.map(|found| found.id))
}

/// Gives the messages of others their text back, if the attempt before was lost while it looked at them.
async fn restore(context: &Context, address: &mut Address, overwritten: &[i64]) -> Result<(), OutError> {
    if overwritten.is_empty() {
        return Ok(());
    }
    let chat = context.incoming.chat_key();
    let others = context
        .services
        .chats()
        .of_others(context.job.id, &chat, overwritten)
        .await;
    for (id, body) in others.map_err(|_| OutError::Retry(SOON))? {
        match edit(context, address, id, &body).await {
            Ok(()) | Err(OutError::NoMessage) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A message that said something else may be what another job of the chat has sent in this moment, such as the reply to `/stop`: then
/// it is noted soon, and gets its own text back. False when it is not.
async fn gave_back(context: &Context, address: &mut Address, id: i64, begun: Instant) -> Result<bool, OutError> {
    let (chats, chat_key) = (context.services.chats(), context.incoming.chat_key());
    let found = Instant::now();
    let body = loop {
        tokio::time::sleep(OTHERS_SETTLE).await;
        let owner = chats.owner(context.job.id, &chat_key, id).await;
        match owner.map_err(|_| OutError::Retry(SOON))? {
            Owner::Another(body) => break body,
            Owner::PerhapsAnother if found.elapsed() < OTHERS_NOTE => {}
            Owner::PerhapsAnother | Owner::Nobody => return Ok(false),
        }
    };
    // A preview is drawn over by what follows it.
    let Some(body) = body else { return Ok(true) };
    loop {
        match edit(context, address, id, &body).await {
            Ok(()) | Err(OutError::NoMessage) => return Ok(true),
            Err(OutError::Retry(wait)) if begun.elapsed() + wait < SEARCH_PATIENCE => tokio::time::sleep(wait).await,
            Err(error) => return Err(error),
        }
    }
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
