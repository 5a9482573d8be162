//! Messages that waited too long, while nobody was listening: one word about all of them instead of many late answers.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;
use services::{Absorbed, Change, Incoming, is_command};

use super::{Context, Handled};
use crate::{
    incoming::{Event, event, sent_at},
    texts,
};

pub(crate) fn is_late(context: Context) -> bool {
    came_late(&context, &context.job.update)
}

fn came_late(context: &Context, update: &Value) -> bool {
    let Some(after) = context.late_after.and_then(|after| TimeDelta::from_std(after).ok()) else {
        return false;
    };
    sent_at(update).is_some_and(|sent| context.services.now() - sent > after)
}

/// Takes the other late texts of the conversation out of the queue and answers all together. No model is asked.
pub(crate) async fn summary(context: Context) -> Handled {
    let mut late = Vec::new();
    let mut last = context.incoming.message_id;
    for (job, update) in context.services.chats().waiting(&context.incoming.lane()).await? {
        if let Event::Text(incoming) = event(&context.bot, &update, context.incoming.received_at)
            && !is_command(&incoming.text)
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
    let text = texts::late(context.lang, late.len() + 1);
    let incoming = Incoming {
        // Below the last of them, and in a group as the answer to it.
        message_id: last,
        ..(*context.incoming).clone()
    };
    let context = Context {
        incoming: Arc::new(incoming),
        ..context
    };
    context.reply(text, None, Change::Absorb(late)).await
}
