//! When a bot may call Telegram. Time comes in as an argument, so that tests state exact moments.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const PREVIEW_PRIVATE: Duration = Duration::from_secs(1);
const PREVIEW_GROUP: Duration = Duration::from_secs(3);
/// Of the 30 calls a second that a bot has, previews leave these to answers and commands.
const PREVIEWS_STOP_AT: u32 = 20;
/// Added to what Telegram asks for: its clock counts whole seconds.
const MARGIN: Duration = Duration::from_millis(100);
/// After this time without a call a chat is forgotten.
const IDLE: Duration = Duration::from_secs(60);
const CHATS_BEFORE_PRUNING: usize = 1024;

/// The pace of one bot: every call is announced here first. Shared by all who send for the bot in this process.
#[derive(Debug, Default)]
pub struct Pacer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chats: HashMap<i64, Chat>,
    bot_blocked_until: Option<Instant>,
    /// The chat that was limited last, and when: a second one within a second means that it is the bot that is too fast.
    limited: Option<(i64, Instant)>,
    /// The calls of the second that began then.
    second: Option<(Instant, u32)>,
    prune_at: usize,
}

#[derive(Debug)]
struct Chat {
    last_call: Instant,
    /// Before this nothing but an answer is worth a call.
    next_preview: Instant,
    blocked_until: Option<Instant>,
}

impl Pacer {
    /// Takes the right to send a preview now. `false`: skip it, the next one will say more anyway.
    pub fn take_preview(&self, chat: i64, private: bool, now: Instant) -> bool {
        self.with(|state| {
            let allowed = state.wait(chat, now).is_zero()
                && state.calls_this_second(now) < PREVIEWS_STOP_AT
                && state.chats.get(&chat).is_none_or(|chat| chat.next_preview <= now);
            if allowed {
                state.count(chat, private, now);
            }
            allowed
        })
    }

    /// How long an answer or a command still has to wait; zero takes the right to send it now.
    pub fn take(&self, chat: i64, private: bool, now: Instant) -> Duration {
        self.with(|state| {
            let wait = state.wait(chat, now);
            if wait.is_zero() {
                state.count(chat, private, now);
            }
            wait
        })
    }

    /// Telegram has asked for a pause in a chat.
    pub fn limited(&self, chat: i64, retry_after: Duration, now: Instant) {
        self.with(|state| {
            let until = now + retry_after + MARGIN;
            let entry = state.chat(chat, now);
            entry.blocked_until = entry.blocked_until.max(Some(until));
            if let Some((other, at)) = state.limited
                && other != chat
                && now.saturating_duration_since(at) <= Duration::from_secs(1)
            {
                state.bot_blocked_until = state.bot_blocked_until.max(Some(until));
            }
            state.limited = Some((chat, now));
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn wait(&self, chat: i64, now: Instant) -> Duration {
        let chat = self.chats.get(&chat).and_then(|chat| chat.blocked_until);
        chat.max(self.bot_blocked_until)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn calls_this_second(&self, now: Instant) -> u32 {
        self.second
            .filter(|(begin, _)| now.saturating_duration_since(*begin) < Duration::from_secs(1))
            .map_or(0, |(_, calls)| calls)
    }

    fn count(&mut self, chat: i64, private: bool, now: Instant) {
        self.second = match self.calls_this_second(now) {
            0 => Some((now, 1)),
            calls => self.second.map(|(begin, _)| (begin, calls + 1)),
        };
        let pause = if private { PREVIEW_PRIVATE } else { PREVIEW_GROUP };
        self.chat(chat, now).next_preview = now + pause;
    }

    fn chat(&mut self, id: i64, now: Instant) -> &mut Chat {
        if self.chats.len() >= self.prune_at.max(CHATS_BEFORE_PRUNING) {
            self.chats.retain(|_, chat| {
                now.saturating_duration_since(chat.last_call) < IDLE
                    || chat.blocked_until.is_some_and(|until| until > now)
            });
            // So that chats that are all busy are not gone through at every call.
            self.prune_at = self.chats.len() * 2;
        }
        let chat = self.chats.entry(id).or_insert(Chat {
            last_call: now,
            next_preview: now,
            blocked_until: None,
        });
        chat.last_call = now;
        chat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn previews_are_skipped_and_answers_go_at_once() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        assert!(pacer.take_preview(1, true, now));
        assert!(!pacer.take_preview(1, true, now + ms(999)));
        assert_eq!(pacer.take(1, true, now + ms(999)), Duration::ZERO);
        assert!(!pacer.take_preview(1, true, now + ms(1500)), "the answer counts too");
        assert!(pacer.take_preview(1, true, now + ms(2000)));
        assert!(pacer.take_preview(-2, false, now));
        assert!(!pacer.take_preview(-2, false, now + ms(2900)));
        assert!(pacer.take_preview(-2, false, now + ms(3000)));
    }

    #[tokio::test]
    async fn a_limited_chat_waits_and_others_do_not() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.limited(1, ms(5000), now);
        assert_eq!(pacer.take(1, true, now), ms(5100));
        assert!(!pacer.take_preview(1, true, now + ms(5000)));
        assert_eq!(pacer.take(2, true, now), Duration::ZERO);
        assert_eq!(pacer.take(1, true, now + ms(5100)), Duration::ZERO);
        // A shorter pause does not end a longer one.
        pacer.limited(3, ms(5000), now);
        pacer.limited(3, ms(1000), now);
        assert_eq!(pacer.take(3, true, now), ms(5100));
    }

    #[tokio::test]
    async fn two_chats_limited_within_a_second_mean_the_bot() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.limited(1, ms(5000), now);
        pacer.limited(2, ms(3000), now + ms(1001));
        assert_eq!(pacer.take(3, true, now + ms(1001)), Duration::ZERO);
        pacer.limited(1, ms(3000), now + ms(1500));
        assert_eq!(pacer.take(3, true, now + ms(1500)), ms(3100));
    }

    #[tokio::test]
    async fn previews_leave_room_for_answers() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        let sent = (0..100).filter(|chat| pacer.take_preview(*chat, true, now)).count();
        assert_eq!(sent, 20);
        assert_eq!(pacer.take(200, true, now), Duration::ZERO);
        assert!(pacer.take_preview(201, true, now + ms(1000)));
    }

    #[tokio::test]
    async fn idle_chats_are_forgotten() {
        let (pacer, mut now) = (Pacer::default(), Instant::now());
        pacer.limited(-1, Duration::from_secs(3600), now);
        for chat in 0..10_000 {
            pacer.take(chat, true, now);
            now += ms(100);
        }
        assert!(pacer.with(|state| state.chats.len()) <= 2048);
        assert!(!pacer.take(-1, true, now).is_zero(), "a pause in force is kept");
    }
}
