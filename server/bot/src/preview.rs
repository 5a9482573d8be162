//! Showing an answer while it is made. Previews are speed, not truth: they may be skipped and never delay the answer.

use std::time::Duration;

use services::Part;
use tokio::sync::watch;

use crate::{delivery, handlers::Context, render::render, telegram::OutError};

/// An answer that takes longer than this to begin gets "typing…".
const TYPING_AFTER: Duration = Duration::from_millis(400);
/// "typing…" lasts five seconds at most.
const TYPING_EVERY: Duration = Duration::from_millis(4500);
/// An answer that is complete before this is sent whole: one call instead of several.
const FIRST_AFTER: Duration = Duration::from_millis(700);

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
    /// A message was sent whose id is not known.
    pub unsure: bool,
}

impl Shown {
    /// The final parts with the ids of those that stand in the chat already.
    pub fn join(&self, bodies: Vec<domain::views::RichText>) -> Vec<Part> {
        let bodies = bodies.into_iter().enumerate();
        bodies
            .map(|(number, body)| Part {
                body: Some(body),
                message_id: self.ids.get(number).copied(),
            })
            .collect()
    }
}

impl Preview {
    /// `pause`: between two changes of a message; the pace of the transport may stretch it.
    pub fn start(context: &Context, pause: Duration, shown: Shown) -> Self {
        let (text, changes) = watch::channel(String::new());
        let context = context.clone();
        let task = tokio::spawn(run(context, pause, changes, shown));
        Self { text, task }
    }

    /// The text so far.
    pub fn show(&self, text: &str) {
        self.text.send_replace(text.to_owned());
    }

    /// Waits for a call that is under way and says what stands in the chat.
    pub async fn finish(self) -> Shown {
        drop(self.text);
        self.task.await.unwrap_or(Shown {
            ids: Vec::new(),
            unsure: true,
        })
    }
}

async fn run(context: Context, pause: Duration, mut changes: watch::Receiver<String>, mut shown: Shown) -> Shown {
    let address = delivery::address(&context.incoming);
    tokio::select! {
        // `changed` fails when the answer is complete.
        changed = changes.changed() => if changed.is_err() { return shown },
        () = tokio::time::sleep(TYPING_AFTER) => {
            let _ = context.out.typing(&address).await;
            if !typing_until_text(&mut changes, &context, &address).await { return shown }
        }
    }
    let mut last = String::new();
    let mut wait = FIRST_AFTER.min(pause);
    while pause_or_end(&mut changes, wait).await {
        wait = pause;
        let text = changes.borrow_and_update().clone();
        if text == last {
            // The model is thinking: nothing to show until it goes on.
            if changes.changed().await.is_err() {
                break;
            }
        } else if step(&context, &address, &text, &mut shown).await {
            last = text;
        } else {
            break;
        }
    }
    shown
}

async fn typing_until_text(
    changes: &mut watch::Receiver<String>,
    context: &Context,
    address: &crate::telegram::Address,
) -> bool {
    loop {
        tokio::select! {
            changed = changes.changed() => return changed.is_ok(),
            () = tokio::time::sleep(TYPING_EVERY) => { let _ = context.out.typing(address).await; }
        }
    }
}

/// Waits, but not longer than the answer takes; false when it is complete.
async fn pause_or_end(changes: &mut watch::Receiver<String>, pause: Duration) -> bool {
    let ended = async { while changes.changed().await.is_ok() {} };
    // The receiver marks what it saw; the caller reads the latest text anyway.
    tokio::time::timeout(pause, ended).await.is_err()
}

/// Brings the chat up to the text so far; false when previews are over for this answer.
async fn step(context: &Context, address: &crate::telegram::Address, text: &str, shown: &mut Shown) -> bool {
    let parts = render(text);
    let Some(last) = parts.last() else { return true };
    if shown.ids.len() == parts.len() {
        let Some(&id) = shown.ids.last() else { return true };
        return context.out.preview_edit(address, id, last).await.is_ok();
    }
    // An earlier attempt may have sent this very part without learning its id. A second one would stay beside it for ever; the
    // final delivery knows how to look.
    if shown.unsure {
        return false;
    }
    // One message is full: it gets its final form, and the next one begins.
    if let (Some(&id), Some(full)) = (shown.ids.last(), parts.get(shown.ids.len().wrapping_sub(1)))
        && context.out.edit(address, id, full, true).await.is_err()
    {
        return false;
    }
    let number = shown.ids.len();
    let Some(body) = parts.get(number) else { return true };
    let chats = context.services.chats();
    if chats
        .begin_preview(context.job.id, &context.incoming.chat_key(), number)
        .await
        .is_err()
    {
        return false;
    }
    match context.out.begin(address, body).await {
        Ok(id) => {
            shown.ids.push(id);
            chats.sent(context.job.id, number, &[id]).await.is_ok()
        }
        Err(error) => {
            shown.unsure |= error == OutError::Undecided;
            false
        }
    }
}
