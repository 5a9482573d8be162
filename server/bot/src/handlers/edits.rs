//! Somebody has changed a question: it is answered anew, in the messages of the old answer.

use std::sync::Arc;

use services::{Ended, Incoming, is_command};

use super::{Context, Handled, late, text};
use crate::incoming::text_now;

/// Telegram tells of edits that nobody made too, such as a preview of a link that was added: only another text is a new question.
/// Nothing is said about one that no model was asked, or that has become a command.
pub(crate) async fn answer(context: Context) -> Handled {
    if context.known.blocked || late::came_late(&context, &context.job.update) {
        return Ok(Ended::Done);
    }
    let Some((asked, updates)) = context.services.chats().edited(&context.incoming).await? else {
        return Ok(Ended::Done);
    };
    // Newer edits than this one count already; when their turn comes there is nothing left to change.
    let text = text_now(&context.bot, &updates);
    if text.is_empty() || text == asked.text || is_command(&text) {
        return Ok(Ended::Done);
    }
    let incoming = Incoming {
        text,
        replaces: Some(asked.job),
        ..(*context.incoming).clone()
    };
    text::answer(Context {
        incoming: Arc::new(incoming),
        ..context
    })
    .await
}
