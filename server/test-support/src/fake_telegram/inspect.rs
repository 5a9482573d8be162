//! Failures on request, and what was seen.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::faults::Flood;
use super::state::{Bot, BotState, Call, CallbackAnswer, CheckoutAnswer, Counters, Delivery, Draft, Drafts, Message};
use super::{FakeTelegram, Fault};
use crate::net::lock;

/// Failures and other ways to make the bot's life harder.
impl FakeTelegram {
    /// The next `times` calls of the method (`*`: of any) meet this fault.
    pub fn fail_next(&self, method: &str, times: u32, fault: Fault) {
        lock(&self.shared.faults).plan(method, times, fault);
    }

    /// From now on every call of any method meets this fault, until there is none.
    pub fn outage(&self, fault: Option<Fault>) {
        lock(&self.shared.faults).outage = fault;
    }

    /// From now on a chat (`None`: each chat) takes at most so many send and edit calls, chat actions and drafts included,
    /// within `window`. One more is answered 429, as are all until `retry_after` has passed: those are violations.
    pub fn flood(&self, chat: Option<i64>, calls: usize, window: Duration) {
        lock(&self.shared.faults).floods.push(Flood { chat, calls, window });
    }

    /// Calls made to a chat although its `retry_after` had not passed.
    pub fn flood_violations(&self) -> u64 {
        self.counters().flood_violations
    }

    /// What becomes of `sendMessageDraft` from now on. At first the method is unknown.
    pub fn drafts_are(&self, drafts: Drafts) {
        *lock(&self.shared.drafts) = drafts;
    }

    /// Every webhook delivery is accompanied by so many copies at the same moment.
    pub fn duplicate_deliveries(&self, copies: usize) {
        self.shared.duplicates.store(copies, Ordering::Relaxed);
    }

    /// Whether history is kept (the default). Off for benchmarks: calls and old messages are forgotten, counters go on.
    pub fn record(&self, on: bool) {
        self.shared.record.store(on, Ordering::Relaxed);
    }
}

/// Being told instead of asking: for benchmarks, where looking at everything after every change would cost too much.
impl FakeTelegram {
    /// Calls `listener` with each message a bot sends, and again with its new text when it is edited. It runs while the fake
    /// is locked: it should hand over what it needs and must not call the fake. Only the first listener is kept.
    pub fn on_bot_message(&self, listener: impl Fn(&Message) + Send + Sync + 'static) {
        let _ = self.shared.listener.set(Box::new(listener));
    }
}

/// What was seen.
impl FakeTelegram {
    /// All answered calls, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.log).calls.clone()
    }

    /// The calls of one method.
    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        let log = lock(&self.shared.log);
        log.calls
            .iter()
            .filter(|call| call.method.eq_ignore_ascii_case(method))
            .cloned()
            .collect()
    }

    pub fn counters(&self) -> Counters {
        lock(&self.shared.log).counters.clone()
    }

    /// The messages of a chat as they stand now, deleted ones marked, in order of their ids.
    pub fn messages(&self, token: &str, chat: i64) -> Vec<Message> {
        let read = |state: &mut BotState| {
            state
                .chats
                .get(&chat)
                .map(|chat| chat.messages.values().cloned().collect())
        };
        self.read(token, read).unwrap_or_default()
    }

    /// Drafts shown in a chat, oldest first.
    pub fn drafts(&self, token: &str, chat: i64) -> Vec<Draft> {
        self.read(token, |state| state.chats.get(&chat).map(|chat| chat.drafts.clone()))
            .unwrap_or_default()
    }

    /// Chat actions shown in a chat, oldest first.
    pub fn chat_actions(&self, token: &str, chat: i64) -> Vec<String> {
        self.read(token, |state| state.chats.get(&chat).map(|chat| chat.actions.clone()))
            .unwrap_or_default()
    }

    /// How a button press was answered; `None` as long as it was not.
    pub fn callback_answer(&self, token: &str, query_id: &str) -> Option<CallbackAnswer> {
        self.read(token, |state| state.callbacks.get(query_id).cloned().flatten())
    }

    /// What was said of a payment; `None` as long as nothing was.
    pub fn checkout_answer(&self, token: &str, query_id: &str) -> Option<CheckoutAnswer> {
        self.read(token, |state| state.checkouts.get(query_id).cloned().flatten())
    }

    /// The highest offset asked for: all updates below it are confirmed. 0 at first.
    pub fn confirmed_offset(&self, token: &str) -> i64 {
        self.read(token, |state| state.confirmed_offset)
    }

    /// Ids of the updates that were neither confirmed nor accepted by a webhook.
    pub fn pending_updates(&self, token: &str) -> Vec<i64> {
        self.read(token, |state| state.updates.iter().map(|(id, _)| *id).collect())
    }

    /// Updates the bot did not get because their kind was not in its `allowed_updates`.
    pub fn updates_not_allowed(&self, token: &str) -> Vec<Value> {
        self.read(token, |state| state.not_allowed.clone())
    }

    /// The remembered `allowed_updates`; empty means Telegram's default.
    pub fn allowed_updates(&self, token: &str) -> Vec<String> {
        self.read(token, |state| state.allowed.clone())
    }

    /// How often the bot asked for `drop_pending_updates`; a bot that takes payments never may.
    pub fn pending_dropped(&self, token: &str) -> u64 {
        self.read(token, |state| state.pending_dropped)
    }

    /// getUpdates calls that are being held open now.
    pub fn polls_open(&self, token: &str) -> usize {
        self.read(token, |state| state.polling)
    }

    /// Where updates are posted to, if anywhere.
    pub fn webhook_url(&self, token: &str) -> Option<String> {
        self.read(token, |state| state.webhook.as_ref().map(|webhook| webhook.url.clone()))
    }

    /// Attempts to deliver by webhook, in the order they ended.
    pub fn deliveries(&self, token: &str) -> Vec<Delivery> {
        self.read(token, |state| state.deliveries.clone())
    }

    pub(crate) fn all_chats(&self) -> Vec<(String, i64)> {
        let bots: Vec<_> = {
            let bots = self.shared.bots.read().unwrap_or_else(PoisonError::into_inner);
            bots.iter()
                .map(|(token, bot)| (token.clone(), Arc::clone(bot)))
                .collect()
        };
        let chats = |bot: &Bot| lock(&bot.state).chats.keys().copied().collect::<Vec<_>>();
        bots.into_iter()
            .flat_map(|(token, bot)| chats(&bot).into_iter().map(move |id| (token.clone(), id)))
            .collect()
    }
}
