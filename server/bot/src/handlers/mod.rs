//! What the bot does with a message: the dptree schema, and one handler per topic, each as short as a controller.

mod commands;
mod edits;
mod late;
mod text;

use std::{sync::Arc, time::Duration};

use domain::{ErrorCode, Lang};
use services::{BotRecord, Change, Claimed, Ended, Incoming, Known, Part, Reply, Services};
use teloxide::{dptree, utils::command::BotCommands};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{delivery::deliver_reply, incoming::Event, preview::Shown, telegram::ChatOut, texts};

/// Everything a handler may touch while it works on one message.
#[derive(Clone)]
pub struct Context {
    pub services: Services,
    pub out: Arc<dyn ChatOut>,
    pub bot: Arc<BotRecord>,
    pub job: Arc<Claimed>,
    pub incoming: Arc<Incoming>,
    pub known: Arc<Known>,
    pub lang: Lang,
    /// Texts older than this are not answered one by one.
    pub late_after: Option<Duration>,
    /// Fires when the user has sent `/stop`, or the lease is lost.
    pub cancel: CancellationToken,
    /// What earlier attempts have left.
    pub before: Arc<Vec<Part>>,
}

/// Why a handler could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Service(#[from] services::Error),
    /// Somebody else has the job now; nothing was written.
    #[error("the lease was lost")]
    LeaseLost,
}

pub(crate) type Handled = Result<Ended, Failure>;

/// What people may type; `/stop` overtakes the others.
#[derive(BotCommands, Clone, Debug, PartialEq, Eq)]
#[command(rename_rule = "lowercase")]
pub(crate) enum Command {
    Start,
    Help,
    New,
    Model(String),
    Usage,
    Stop,
}

/// The schema: from top to bottom, the first branch that fits.
pub(crate) fn schema() -> dptree::Handler<'static, Handled> {
    use dptree::case;
    dptree::entry()
        .branch(dptree::filter(|event: Event| matches!(event, Event::Edited(_))).endpoint(edits::answer))
        .branch(dptree::filter(late::is_late).endpoint(late::summary))
        .branch(dptree::filter(|context: Context| context.known.blocked).endpoint(commands::blocked))
        .branch(dptree::filter(|event: Event| matches!(event, Event::Unsupported(_))).endpoint(commands::unsupported))
        .branch(
            dptree::filter_map(command)
                .branch(case![Command::Start].endpoint(commands::start))
                .branch(case![Command::Help].endpoint(commands::help))
                .branch(case![Command::New].endpoint(commands::new))
                .branch(case![Command::Model(name)].endpoint(commands::model))
                .branch(case![Command::Usage].endpoint(commands::usage))
                .branch(case![Command::Stop].endpoint(commands::stop)),
        )
        .branch(
            dptree::filter(|context: Context| asks_nothing(&context) || unknown_command(context))
                .endpoint(commands::help),
        )
        .endpoint(text::answer)
}

fn command(context: Context) -> Option<Command> {
    let username = context.bot.username.as_deref().unwrap_or_default();
    let text = context.incoming.text.trim();
    let (head, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    // People write /Help and /START; teloxide compares exactly.
    let text = format!("{} {}", head.to_lowercase(), rest.trim());
    Command::parse(text.trim(), &username.to_lowercase()).ok()
}

/// Only called by its name.
fn asks_nothing(context: &Context) -> bool {
    context.incoming.text.trim().is_empty()
}

/// `/something` that is no command of ours, but not a path or a formula.
fn unknown_command(context: Context) -> bool {
    let first = context.incoming.text.split_whitespace().next().unwrap_or_default();
    first.strip_prefix('/').is_some_and(|name| {
        (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@'))
    })
}

impl Context {
    /// Stores the reply together with what it changes, then sends it.
    pub(crate) async fn reply(&self, text: String, code: Option<ErrorCode>, change: Change) -> Handled {
        // Plain text: names and the like are not Markdown of ours.
        let parts = vec![texts::rich(text.as_str())];
        let reply = Reply {
            text: &text,
            parts: &parts,
            code,
            change,
        };
        let seen = Instant::now();
        if !self
            .services
            .chats()
            .reply(&self.job, &self.incoming, &self.known, reply)
            .await?
        {
            return Err(Failure::LeaseLost);
        }
        deliver_reply(self, Shown::of(&self.before).join(parts), seen).await
    }

    pub(crate) async fn say(&self, text: String) -> Handled {
        self.reply(text, None, Change::None).await
    }

    /// Tells the user what went wrong, in words and by its code.
    pub(crate) async fn refuse(&self, code: ErrorCode) -> Handled {
        self.reply(texts::failed(self.lang, code), Some(code), Change::None)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_lists_the_commands_there_are() {
        let known: Vec<String> = Command::bot_commands().into_iter().map(|known| known.command).collect();
        let known: Vec<&str> = known.iter().map(|name| name.trim_start_matches('/')).collect();
        assert_eq!(known, texts::COMMANDS);
    }
}
