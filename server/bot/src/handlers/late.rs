//! Messages that waited too long, while nobody was listening: one word about all of them instead of many late answers.

use std::sync::Arc;

use chrono::TimeDelta;
use domain::ErrorCode;
use serde_json::Value;
use services::{Absorbed, Change, Incoming, is_command};

use super::{Context, Handled};
use crate::{
    incoming::{Event, event, sent_at},
    texts,
};

/// Commands are done however late they are, unless the sender is blocked: then all get one word together.
pub(crate) fn is_late(context: Context) -> bool {
    let is_command = is_command(context.incoming.text.trim());
    (context.known.blocked || !is_command) && came_late(&context, &context.job.update)
}

pub(crate) fn came_late(context: &Context, update: &Value) -> bool {
    let Some(after) = context.late_after.and_then(|after| TimeDelta::from_std(after).ok()) else {
        return false;
    };
    sent_at(update).is_some_and(|sent| context.services.now() - sent > after)
}

/// Takes the other late messages of the conversation out of the queue and answers all together. No model is asked.
pub(crate) async fn summary(context: Context) -> Handled {
    let mut late = Vec::new();
    let mut last = context.incoming.message_id;
    for (job, update) in context.services.chats().waiting(&context.incoming.lane()).await? {
        if let Event::Text(incoming) | Event::Unsupported(incoming) =
            event(&context.bot, &update, context.incoming.received_at)
            && (if context.known.blocked {
                incoming.user_external_id == context.incoming.user_external_id
            } else {
                !is_command(incoming.text.trim())
            })
            && came_late(&context, &update)
        {
            last = incoming.message_id;
            late.push(Absorbed {
                job,
                user_external_id: incoming.user_external_id,
                text: incoming.text,
            });
        }
    }
    let code = context.known.blocked.then_some(ErrorCode::Blocked);
    let text = code.map_or_else(
        || texts::late(context.lang, late.len() + 1),
        |code| texts::failed(context.lang, code),
    );
    let incoming = Incoming {
        // Below the last of them, and in a group as the answer to it.
        message_id: last,
        ..(*context.incoming).clone()
    };
    let context = Context {
        incoming: Arc::new(incoming),
        ..context
    };
    context.reply(text, code, Change::Absorb(late)).await
}
