//! The main thing: a question goes to the model, its answer to the chat.

use std::time::Duration;

use domain::views::BotTransport;
use gateway::{Answer, Finish};
use services::{Begin, Change, Question, Refusal};
use tokio::time::Instant;

use super::{Context, Failure, Handled};
use crate::{
    delivery::deliver,
    preview::{Preview, Shown},
    render::{render, render_with_note},
    texts,
};

pub(crate) async fn answer(context: Context) -> Handled {
    let persona = &context.bot.persona;
    let model = context.bot.model.as_deref();
    match context
        .services
        .chats()
        .begin(&context.job, &context.incoming, &context.known, persona, model)
        .await?
    {
        Begin::Refused(refusal) => refuse(&context, refusal).await,
        Begin::Ask(mut question) => ask(&context, &mut question).await,
        Begin::LeaseLost => Err(Failure::LeaseLost),
    }
}

async fn refuse(context: &Context, refusal: Refusal) -> Handled {
    let text = match refusal.limit {
        Some(reached) => texts::refused(context.lang, reached, context.services.now()),
        None => texts::failed(context.lang, refusal.code),
    };
    context.reply(text, Some(refusal.code), Change::None).await
}

async fn ask(context: &Context, question: &mut Question) -> Handled {
    // The old answer stands until the new one is complete.
    let in_place = context.incoming.replaces.is_some();
    let generation = context.cancel.child_token();
    let preview = Preview::start(
        context,
        pause(context.bot.transport),
        Shown::of(&context.before),
        generation.clone(),
    );
    let chats = context.services.chats();
    let (incoming, known, cache) = (&context.incoming, &context.known, &context.bot.cache);
    let answer = chats
        .answer(incoming, known, question, cache, &generation, |text| {
            if !in_place {
                preview.show(text);
            }
        })
        .await;
    let instead = question.instead_of();
    let instead = instead.map(|(chosen, answers)| texts::model_instead(context.lang, chosen, answers));
    let notes: Vec<String> = instead.into_iter().chain(note(context, &answer)).collect();
    let bodies = match (!notes.is_empty()).then(|| notes.join("\n")) {
        None => render(&answer.text),
        Some(note) if answer.text.trim().is_empty() => vec![texts::rich(note)],
        Some(note) => render_with_note(&answer.text, &note),
    };
    let seen = Instant::now();
    let settled = chats.settle(
        &context.job,
        &context.incoming,
        &context.known,
        question,
        &answer,
        &bodies,
    );
    // A preview that is under way is waited for meanwhile: what it left in the chat is what the answer is given to.
    let (shown, settled) = tokio::join!(preview.finish(), settled);
    if !settled? {
        return Err(Failure::LeaseLost);
    }
    let parts = if in_place {
        chats.parts(context.job.id).await?
    } else {
        shown.join(bodies)
    };
    deliver(context, parts, Some(seen)).await
}

/// What is said below the text when it is not a whole answer.
fn note(context: &Context, answer: &Answer) -> Option<String> {
    match (&answer.finish, &answer.failure) {
        (Finish::Complete(word), None) => match word.as_str() {
            "length" => Some(texts::length_suffix(context.lang)),
            "content_filter" => Some(texts::filtered_suffix(context.lang)),
            _ => None,
        },
        (Finish::Stopped, _) => Some(texts::stopped_suffix(context.lang)),
        (_, Some(failure)) if answer.text.trim().is_empty() => Some(texts::failed(context.lang, failure.code())),
        (_, Some(failure)) => Some(texts::cut_suffix(context.lang, failure.code())),
        (_, None) => None,
    }
}

/// How often a message may change while its answer is made: Telegram's pace is about one a second, a browser's is the eye's.
fn pause(transport: BotTransport) -> Duration {
    match transport {
        BotTransport::Telegram => Duration::from_millis(1000),
        BotTransport::Browser => Duration::from_millis(120),
    }
}
