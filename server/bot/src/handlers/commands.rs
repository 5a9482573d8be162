//! Commands: three lines each.

use domain::ErrorCode;
use services::Change;

use super::{Context, Handled};
use crate::texts;

pub(crate) async fn start(context: Context) -> Handled {
    let text = texts::start(context.lang, &context.incoming.user_name, &context.bot.name);
    context.say(text).await
}

pub(crate) async fn help(context: Context) -> Handled {
    context
        .say(texts::help(context.lang, &texts::commands(context.lang)))
        .await
}

pub(crate) async fn new(context: Context) -> Handled {
    context
        .reply(texts::new_conversation(context.lang), None, Change::Renew)
        .await
}

pub(crate) async fn usage(context: Context) -> Handled {
    let bars = context.services.chats().usage(&context.known).await?;
    context
        .say(texts::usage(context.lang, &bars, &context.known.plan_name))
        .await
}

pub(crate) async fn model(context: Context, name: String) -> Handled {
    let chats = context.services.chats();
    let names = chats.models(&context.known);
    let name = name.trim();
    if name.is_empty() {
        let current = chats.model(&context.known, context.bot.model.as_deref());
        let current = current.map(|model| model.name.clone()).unwrap_or_default();
        return context.say(texts::models(context.lang, &names, &current)).await;
    }
    match names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(known) => {
            context
                .reply(
                    texts::model_set(context.lang, known),
                    None,
                    Change::Model(known.clone()),
                )
                .await
        }
        None => {
            let offered = context.services.gateway().models();
            let text = match offered.iter().find(|model| model.name.eq_ignore_ascii_case(name)) {
                Some(model) => texts::model_not_in_plan(context.lang, &model.name, &context.known.plan_name),
                None => texts::model_unknown(context.lang, name),
            };
            context.reply(text, Some(ErrorCode::NoModel), Change::None).await
        }
    }
}

/// Runs beside the answer it stops. The answer itself says that it was stopped.
pub(crate) async fn stop(context: Context) -> Handled {
    let queue = context.services.queue();
    // What was written after it is not meant.
    let stopped = queue.cancel_lane(&context.incoming.lane(), context.job.id).await?;
    let text = if stopped {
        texts::stopped(context.lang)
    } else {
        texts::nothing_to_stop(context.lang)
    };
    context.say(text).await
}

pub(crate) async fn blocked(context: Context) -> Handled {
    context.refuse(ErrorCode::Blocked).await
}

pub(crate) async fn unsupported(context: Context) -> Handled {
    context.say(texts::only_text(context.lang)).await
}
