//! Showing an answer while it is made. Previews are speed, not truth: they may be skipped and never delay the answer.
//!
//! Where the chat takes drafts, the growing text is one: nothing stands in the chat until the answer itself is sent, so there is
//! nothing to be found again after a crash either. Elsewhere a message is sent and edited. Only the latest text is ever shown:
//! what came while a call was under way is skipped.

use std::time::Duration;

use domain::views::RichText;
use services::{Lost, Part, draft_id};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    delivery,
    handlers::Context,
    render::render,
    telegram::{Address, Drawn, OutError},
};

/// An answer that takes longer than this to begin gets "typing…".
const TYPING_AFTER: Duration = Duration::from_millis(400);
/// "typing…" lasts five seconds at most.
const TYPING_EVERY: Duration = Duration::from_millis(4500);
/// An answer that is complete before this is sent whole: one call instead of several.
const FIRST_AFTER: Duration = Duration::from_millis(700);

/// A draft is shown for 30 seconds; while the model is silent it is drawn again before it vanishes.
const DRAW_AGAIN: Duration = Duration::from_secs(20);
/// After so many in a row that did not get through, an answer is shown without drafts.
const DRAFTS_MISSED: u32 = 2;

/// A running preview. Feed it with the text so far, then take what it has sent.
pub(crate) struct Preview {
    text: watch::Sender<String>,
    task: tokio::task::JoinHandle<Shown>,
}

/// What a preview has left in the chat.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Message ids from part 0 on.
    pub ids: Vec<i64>,
    /// Of the first part that has none.
    pub lost: Lost,
}

impl Shown {
    /// What an earlier attempt, cut short before its answer was complete, left standing in the chat.
    pub fn of(parts: &[Part]) -> Self {
        let unknown = parts.iter().find(|part| part.message_id.is_none());
        Self {
            ids: parts.iter().map_while(|part| part.message_id).collect(),
            lost: unknown.map(|part| part.lost.clone()).unwrap_or_default(),
        }
    }

    /// The final parts with the ids of those that stand in the chat already, and what stands there beyond them: an earlier attempt
    /// may have had more to say.
    pub fn join(&self, bodies: Vec<RichText>) -> Vec<Part> {
        let mut ids = self.ids.iter().copied();
        let mut parts: Vec<Part> = bodies
            .into_iter()
            .map(|body| Part {
                body: Some(body),
                message_id: ids.next(),
                lost: Lost::default(),
            })
            .collect();
        if let Some(next) = parts.get_mut(self.ids.len()) {
            next.lost = self.lost.clone();
        }
        parts.extend(ids.map(|id| Part {
            body: None,
            message_id: Some(id),
            lost: Lost::default(),
        }));
        parts
    }
}

impl Preview {
    /// `pause`: between two changes of a message; the pace of the transport may stretch it. `generation` is cancelled when the chat
    /// turns out to be closed: nobody will read the rest, and somebody would pay for it.
    pub fn start(context: &Context, pause: Duration, shown: Shown, generation: CancellationToken) -> Self {
        let (text, changes) = watch::channel(String::new());
        let context = context.clone();
        let task = tokio::spawn(run(context, pause, changes, shown, generation));
        Self { text, task }
    }

    /// The text so far.
    pub fn show(&self, text: &str) {
        self.text.send_replace(text.to_owned());
    }

    /// Waits for a call that is under way and says what stands in the chat.
    pub async fn finish(self) -> Shown {
        drop(self.text);
        self.task.await.unwrap_or_else(|_| Shown {
            ids: Vec::new(),
            lost: perhaps(),
        })
    }
}

/// A preview may have been sent.
fn perhaps() -> Lost {
    Lost {
        maybe_sent: true,
        previewed: true,
        ..Lost::default()
    }
}

async fn run(
    context: Context,
    pause: Duration,
    mut changes: watch::Receiver<String>,
    shown: Shown,
    generation: CancellationToken,
) -> Shown {
    let address = delivery::address(&context.incoming);
    let mut view = View {
        // What an earlier attempt has left standing grows on.
        drafting: shown.ids.is_empty() && !shown.lost.maybe_sent && context.out.drafts(&address),
        context: &context,
        // Not relied on until it has been asked for.
        address: Address {
            ours_until: Some(Instant::now()),
            ..address
        },
        complete: 0,
        drafts_missed: 0,
        shown,
        generation,
    };
    tokio::select! {
        // `changed` fails when the answer is complete.
        changed = changes.changed() => if changed.is_err() { return view.shown },
        () = tokio::time::sleep(TYPING_AFTER) => {
            if !typing_until_text(&mut changes, &view).await { return view.shown }
        }
    }
    let mut last = String::new();
    let mut wait = FIRST_AFTER.min(pause);
    while pause_or_end(&mut changes, wait).await {
        wait = pause;
        let text = changes.borrow_and_update().clone();
        // The model is thinking: nothing to show until it goes on.
        if text == last && !silence(&mut changes, view.drafting).await {
            break;
        }
        let text = changes.borrow_and_update().clone();
        match view.step(&text).await {
            Ok(true) => last = text,
            Ok(false) => break,
            Err(error) => {
                view.heed(&error);
                break;
            }
        }
    }
    view.shown
}

/// Until there is more text, or a draft would vanish; false when the answer is complete.
async fn silence(changes: &mut watch::Receiver<String>, drafting: bool) -> bool {
    let changed = changes.changed();
    if !drafting {
        return changed.await.is_ok();
    }
    match tokio::time::timeout(DRAW_AGAIN, changed).await {
        Ok(changed) => changed.is_ok(),
        Err(_) => true,
    }
}

async fn typing_until_text(changes: &mut watch::Receiver<String>, view: &View<'_>) -> bool {
    loop {
        tokio::select! {
            // Also in the middle of a call that hangs: an answer that is complete does not wait for it.
            changed = changes.changed() => return changed.is_ok(),
            () = async { view.typing().await; tokio::time::sleep(TYPING_EVERY).await } => {}
        }
    }
}

/// Waits, but not longer than the answer takes; false when it is complete.
async fn pause_or_end(changes: &mut watch::Receiver<String>, pause: Duration) -> bool {
    let ended = async { while changes.changed().await.is_ok() {} };
    // The receiver marks what it saw; the caller reads the latest text anyway.
    tokio::time::timeout(pause, ended).await.is_err()
}

/// What the chat shows of an answer.
struct View<'a> {
    context: &'a Context,
    address: Address,
    shown: Shown,
    drafting: bool,
    /// Drafts in a row that did not get through.
    drafts_missed: u32,
    /// How many messages have their final form.
    complete: usize,
    generation: CancellationToken,
}

impl View<'_> {
    async fn typing(&self) {
        if let Err(error) = self.context.out.typing(&self.address).await {
            self.heed(&error);
        }
    }

    /// A chat that is closed ends the making of the answer, too.
    fn heed(&self, error: &OutError) {
        if matches!(error, OutError::Blocked | OutError::NoChat) {
            self.generation.cancel();
        }
    }

    /// Brings the chat up to the text so far; false when previews are over for this answer.
    async fn step(&mut self, text: &str) -> Result<bool, OutError> {
        let parts = render(text);
        let Some(last) = parts.last() else { return Ok(true) };
        // Whoever has it now shows its own previews, or has sent the answer already: an old one must not take its place.
        if !delivery::still_ours(self.context, &mut self.address)
            .await
            .unwrap_or(false)
        {
            return Ok(false);
        }
        if self.shown.ids.len() == parts.len() {
            let Some(&id) = self.shown.ids.last() else {
                return Ok(true);
            };
            self.context.out.preview_edit(&self.address, id, last).await?;
            return Ok(true);
        }
        // An earlier attempt may have sent this very part without learning its id. A second one would stay beside it for ever; the
        // final delivery knows how to look.
        if self.shown.lost.maybe_sent {
            return Ok(false);
        }
        // A message that was shown growing is full: it gets its final form, and the next one begins. What stands below a draft has
        // its final form already.
        if !self.drafting
            && self.complete < self.shown.ids.len()
            && let (Some(&id), Some(full)) = (self.shown.ids.last(), parts.get(self.shown.ids.len().wrapping_sub(1)))
        {
            // Tried once: the final delivery makes sure.
            if !self.context.out.preview_edit(&self.address, id, full).await? {
                return Ok(true);
            }
            self.complete = self.shown.ids.len();
        }
        if !self.context.out.may_preview(&self.address).await {
            return Ok(true);
        }
        let number = self.shown.ids.len();
        let Some(body) = parts.get(number) else { return Ok(true) };
        // A part that is full will not change: it is sent, and only what comes after it is a draft.
        if self.drafting && number + 1 == parts.len() {
            match self
                .context
                .out
                .draft(&self.address, draft_id(self.context.job.id, number), body)
                .await?
            {
                Drawn::Shown => {
                    self.drafts_missed = 0;
                    return Ok(true);
                }
                Drawn::Missed if self.drafts_missed + 1 < DRAFTS_MISSED => {
                    self.drafts_missed += 1;
                    return Ok(true);
                }
                // The rest of this answer is shown by a message that is edited.
                Drawn::Missed | Drawn::Refused => self.drafting = false,
            }
        }
        self.begin(number, body).await
    }

    async fn begin(&mut self, number: usize, body: &RichText) -> Result<bool, OutError> {
        let Context { job, incoming, out, .. } = self.context;
        let chats = self.context.services.chats();
        if chats.begin_preview(job, &incoming.chat_key(), number).await.is_err() {
            return Ok(false);
        }
        match out.begin(&self.address, body).await {
            Ok(Some(id)) => {
                self.shown.ids.push(id);
                Ok(chats.sent(job, number, &[id]).await.is_ok())
            }
            Ok(None) => Ok(true),
            Err(error) => {
                if error == OutError::Undecided {
                    self.shown.lost = perhaps();
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_attempt_said_beyond_this_answer_goes_away() {
        let body = |text: &str| RichText {
            text: text.to_owned(),
            entities: Vec::new(),
        };
        let shown = Shown {
            ids: vec![7, 8, 9],
            lost: Lost::default(),
        };
        let parts = shown.join(vec![body("short")]);
        let told: Vec<_> = parts
            .iter()
            .map(|part| (part.body.is_some(), part.message_id))
            .collect();
        assert_eq!(told, [(true, Some(7)), (false, Some(8)), (false, Some(9))]);
        let shown = Shown {
            ids: Vec::new(),
            lost: perhaps(),
        };
        let longer = shown.join(vec![body("a"), body("b")]);
        assert!(
            longer
                .iter()
                .all(|part| part.body.is_some() && part.message_id.is_none())
        );
        let lost: Vec<bool> = longer.iter().map(|part| part.lost.maybe_sent).collect();
        assert_eq!(lost, [true, false], "only the first can have been begun");
    }
}
