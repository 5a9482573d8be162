//! Failures on purpose: of the next calls of a method, and by a limit on calls to a chat.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Calls under way while a 429 is being answered are not held against the bot: it could not know yet.
const VIOLATION_GRACE: Duration = Duration::from_millis(50);

/// What happens to a call instead of, or beside, its proper handling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused with this code and description.
    Status(u16, String),
    /// Not handled: a page of HTML with this status, as from something in between.
    Html(u16),
    /// 429 with `retry_after` in seconds; until then this method refuses the same chat and counts violations.
    RetryAfter(u64),
    /// 400 with `migrate_to_chat_id`: the group has become a supergroup.
    MigrateTo(i64),
    /// The connection is cut and nothing was done.
    DropBeforeHandling,
    /// The connection is cut although everything was done: the message is sent, the answer never arrives.
    DropAfterHandling,
    /// Everything was done, and yet the answer is this code, "Bad Gateway": what stands behind it got lost.
    StatusAfterHandling(u16),
    /// Handled as usual after so many milliseconds, unless the caller has gone away by then.
    Delay(u64),
    /// Handled after so many milliseconds, whether or not the caller still waits: the request had been read.
    Late(u64),
}

/// At most `calls` send and edit calls within `window` to a chat, or to each chat when `chat` is `None`.
#[derive(Clone, Debug)]
pub(crate) struct Flood {
    pub(crate) chat: Option<i64>,
    pub(crate) calls: usize,
    pub(crate) window: Duration,
}

#[derive(Default)]
pub(crate) struct Faults {
    planned: VecDeque<(String, u32, Fault)>,
    /// What every call meets.
    pub(crate) outage: Option<Fault>,
    pub(crate) floods: Vec<Flood>,
}

impl Faults {
    pub(crate) fn plan(&mut self, method: &str, times: u32, fault: Fault) {
        if times > 0 {
            self.planned.push_back((method.to_ascii_lowercase(), times, fault));
        }
    }

    /// The fault planned for this call, used up by asking.
    pub(crate) fn take(&mut self, method: &str) -> Option<Fault> {
        if self.outage.is_some() {
            return self.outage.clone();
        }
        let at = self
            .planned
            .iter()
            .position(|(name, ..)| name == "*" || name.eq_ignore_ascii_case(method))?;
        let (_, times, fault) = self.planned.get_mut(at)?;
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.planned.remove(at);
        }
        Some(fault)
    }

    /// The limit on a chat: its own one before the one for all.
    pub(crate) fn flood(&self, chat: i64) -> Option<Flood> {
        let own = self.floods.iter().rev().find(|flood| flood.chat == Some(chat));
        own.or_else(|| self.floods.iter().rev().find(|flood| flood.chat.is_none()))
            .cloned()
    }
}

/// What a limiter says to a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Seconds to wait, and whether the call broke an earlier `retry_after`.
    Wait {
        seconds: u64,
        violation: bool,
    },
}

/// The recent calls to one chat.
#[derive(Default)]
pub(crate) struct Limiter {
    recent: VecDeque<Instant>,
    muted: Option<(Instant, Instant)>,
}

impl Limiter {
    /// Refuses everything for so many seconds from now.
    pub(crate) fn mute(&mut self, now: Instant, seconds: u64) {
        self.muted = Some((now, now + Duration::from_secs(seconds)));
    }

    pub(crate) fn check(&mut self, now: Instant, flood: Option<&Flood>) -> Verdict {
        if let Some((since, until)) = self.muted {
            if now < until {
                let violation = now >= since + VIOLATION_GRACE;
                return Verdict::Wait {
                    seconds: whole_seconds(until - now),
                    violation,
                };
            }
            self.muted = None;
            self.recent.clear();
        }
        let Some(flood) = flood else { return Verdict::Pass };
        while self
            .recent
            .front()
            .is_some_and(|at| now.duration_since(*at) >= flood.window)
        {
            self.recent.pop_front();
        }
        if self.recent.len() < flood.calls {
            self.recent.push_back(now);
            return Verdict::Pass;
        }
        let oldest = self.recent.front().copied().unwrap_or(now);
        let seconds = whole_seconds((oldest + flood.window).saturating_duration_since(now));
        self.mute(now, seconds);
        Verdict::Wait {
            seconds,
            violation: false,
        }
    }
}

/// Telegram tells whole seconds, so the wait is rounded up, to one at least.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1000) as u64).max(1)
}
