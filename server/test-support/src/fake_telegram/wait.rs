//! Waiting until the bot has done something.

use std::time::Duration;

use super::FakeTelegram;
use super::state::Message;
use crate::wait::{NotSeen, until};

impl FakeTelegram {
    /// Waits until `look` finds what it looks for; it is asked again after every change.
    pub async fn wait_for<T>(&self, timeout: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T, NotSeen> {
        until(&self.shared.changed, timeout, || look(self), || self.summary()).await
    }

    /// The bot's first message after the given one, as it stands at that moment: it may still be edited.
    pub async fn wait_reply(
        &self,
        token: &str,
        chat: i64,
        after_message_id: i64,
        timeout: Duration,
    ) -> Result<Message, NotSeen> {
        self.wait_message(token, chat, timeout, |message| {
            message.from_bot && message.id > after_message_id
        })
        .await
    }

    /// The first message of a chat, as it stands then, of which `is_it` is true.
    pub async fn wait_message(
        &self,
        token: &str,
        chat: i64,
        timeout: Duration,
        mut is_it: impl FnMut(&Message) -> bool,
    ) -> Result<Message, NotSeen> {
        self.wait_for(timeout, |fake| {
            fake.messages(token, chat).into_iter().find(|message| is_it(message))
        })
        .await
    }

    /// The last calls and messages, for a person who wonders why a test fails.
    pub fn summary(&self) -> String {
        let mut lines = Vec::new();
        let calls = self.calls();
        for call in calls.iter().rev().take(20).rev() {
            let params: String = call.params.to_string().chars().take(160).collect();
            let answer = call.description.clone().unwrap_or_else(|| "ok".to_owned());
            lines.push(format!("call {} {params} -> {:?} {answer}", call.method, call.status));
        }
        for (token, chat) in self.all_chats() {
            for message in self.messages(&token, chat).iter().rev().take(10).rev() {
                let author = if message.from_bot { "bot" } else { "user" };
                let text: String = message.text.chars().take(120).collect();
                lines.push(format!("chat {chat} message {} of the {author}: {text:?}", message.id));
            }
        }
        if lines.is_empty() {
            "nothing at all".to_owned()
        } else {
            lines.join("\n")
        }
    }
}
