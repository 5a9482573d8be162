//! When a bot may call Telegram, for all replicas together: pauses that Telegram has asked for, and the calls of the running second.
//!
//! Asking costs one round trip to Redis for each call to Telegram (and a second one after a 429, which is rare). Pauses could be
//! learnt more cheaply, by reading them now and then; but then every replica would call on for as long as its reading is old, and
//! Telegram answers calls during a pause with a longer one. A script of ten commands takes Redis 20 µs, and the round trips of all
//! answers under way share one connection, so the pace of sending hardly suffers: it is a hundredth of what the call itself takes.
//!
//! Redis is speed, not truth: without it the caller has a stricter count of its own. After one failure nobody waits for Redis any
//! more, until a task in the background has seen it answer again.

use std::{sync::Arc, time::Duration};

use domain::BotId;
use redis::Script;

use crate::{RateLimiter, rate::Shared};

/// Chats limited within this time may mean that it is the bot that is too fast.
const TOGETHER: Duration = Duration::from_secs(1);
/// For this time after a pause of the whole bot its calls are rationed: all that waited would otherwise go off at once.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// Takes the right to one call, or says in milliseconds for how long the bot and the chat are to be silent, or how long the ration
/// of this second (or the chat's own, or its pace of previews) is used up. Times to live are kept by Redis' own clock.
const TAKE: &str = r"
local bot, chat = redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2])
if bot > 0 or chat > 0 then return {math.max(bot, 0), math.max(chat, 0), 0} end
local most = ARGV[1]
if redis.call('EXISTS', KEYS[4]) == 1 then most = ARGV[2] end
if most ~= '' and tonumber(redis.call('GET', KEYS[3]) or '0') >= tonumber(most) then
  return {0, 0, math.max(redis.call('PTTL', KEYS[3]), 1)}
end
if ARGV[3] == '1' then
  local gap = redis.call('PTTL', KEYS[5])
  if gap > 0 then return {0, 0, gap} end
end
if ARGV[5] ~= '' and tonumber(redis.call('GET', KEYS[6]) or '0') >= tonumber(ARGV[5]) then
  return {0, 0, math.max(redis.call('PTTL', KEYS[6]), 1)}
end
if redis.call('INCR', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], 1000) end
if redis.call('INCR', KEYS[6]) == 1 then redis.call('PEXPIRE', KEYS[6], ARGV[6]) end
redis.call('SET', KEYS[5], '', 'PX', ARGV[4])
return {0, 0, 0}
";

/// Notes a pause of a chat, and one of the bot when it can only be the bot that was too fast: when two people's chats were limited at
/// once that had kept to their own pace, or three that had not. Of groups nothing is concluded: those that are busy are limited each
/// for itself. Answers 1 when it is the bot's.
const LIMITED: &str = r"
local function hold(key, time)
  if redis.call('PTTL', key) < time then redis.call('SET', key, '', 'PX', time) end
end
local time = tonumber(ARGV[2])
hold(KEYS[2], time)
if tonumber(ARGV[1]) < 0 then return 0 end
redis.call('SADD', KEYS[6], ARGV[1])
local people = redis.call('SCARD', KEYS[6])
if people == 1 then redis.call('PEXPIRE', KEYS[6], ARGV[4]) end
local whole = people >= 3
if tonumber(redis.call('GET', KEYS[5]) or '0') <= tonumber(ARGV[5]) then
  local other = redis.call('GET', KEYS[3])
  redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[4])
  whole = whole or other and other ~= ARGV[1]
end
if whole then
  hold(KEYS[1], time)
  hold(KEYS[4], time + tonumber(ARGV[3]))
  return 1
end
return 0
";

/// What a call is for: under pressure the upper ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// To many people who have not asked.
    Broadcast,
    /// Shows an answer that is being made, or that one is; is skipped rather than waited for.
    Preview,
    /// What the bot says by itself when somebody asks for it.
    Command,
    /// What somebody waits for.
    Answer,
}

/// A call that wants to be made.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub bot: BotId,
    pub chat: i64,
    /// How many calls the bot may have made within this second; `None`: any number.
    pub most: Option<u32>,
    /// The same within [`RECOVERY`].
    pub most_after_pause: u32,
    /// It keeps the chat's gap between previews.
    pub heeds_gap: bool,
    /// For this long after it the chat gets no preview.
    pub gap: Duration,
    /// How many calls the chat may have had within its [`window`]; `None`: any number.
    pub most_in_chat: Option<u32>,
}

/// How many calls Telegram takes in a chat, and in which time: about one a second of a person's, twenty a minute of a group's. The
/// ids of groups are negative.
pub const fn window(chat: i64) -> (u32, Duration) {
    if chat > 0 {
        (1, Duration::from_secs(1))
    } else {
        (20, Duration::from_secs(60))
    }
}

/// What stands in the way of a call; all zero: nothing did, and the call is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The bot is to be silent in all chats.
    pub bot: Duration,
    pub chat: Duration,
    /// The ration of this second or the chat's pace of previews is used up.
    pub full: Duration,
}

/// The pace that all replicas share.
pub struct SharedPace {
    shared: Option<Shared>,
    take: Script,
    limited: Script,
}

impl SharedPace {
    /// In the Redis in which messages per minute are counted; where there is none, every call gets `None` at once.
    pub fn beside(rate: &RateLimiter) -> Arc<Self> {
        Arc::new(Self {
            shared: rate.shared(),
            take: Script::new(TAKE),
            limited: Script::new(LIMITED),
        })
    }

    /// Counts the call, or says why it may not be made yet. `None`: Redis is not there.
    pub async fn take(&self, ask: &Ask) -> Option<Held> {
        let Keys { base, chat } = Keys::new(ask.bot, ask.chat);
        let mut call = self.take.key(format!("{base}:pause"));
        call.key(format!("{chat}:pause"))
            .key(format!("{base}:second"))
            .key(format!("{base}:recovery"))
            .key(format!("{chat}:gap"))
            .key(format!("{chat}:window"))
            .arg(or_empty(ask.most))
            .arg(ask.most_after_pause)
            .arg(u8::from(ask.heeds_gap))
            .arg(millis(ask.gap))
            .arg(or_empty(ask.most_in_chat))
            .arg(millis(window(ask.chat).1));
        let (bot, chat, full): (u64, u64, u64) = self.shared.as_ref()?.run(&call).await?;
        Some(Held {
            bot: Duration::from_millis(bot),
            chat: Duration::from_millis(chat),
            full: Duration::from_millis(full),
        })
    }

    /// Tells all replicas that Telegram wants a pause in a chat; `Some(true)` when that makes it one of the whole bot. `None`: Redis
    /// is not there, and nobody was told.
    pub async fn limited(&self, bot: BotId, chat_id: i64, pause: Duration) -> Option<bool> {
        let Keys { base, chat } = Keys::new(bot, chat_id);
        let mut call = self.limited.key(format!("{base}:pause"));
        call.key(format!("{chat}:pause"))
            .key(format!("{base}:limited"))
            .key(format!("{base}:recovery"))
            .key(format!("{chat}:window"))
            .key(format!("{base}:people"))
            .arg(chat_id)
            .arg(millis(pause))
            .arg(millis(RECOVERY))
            .arg(millis(TOGETHER))
            .arg(window(chat_id).0);
        let whole: u8 = self.shared.as_ref()?.run(&call).await?;
        Some(whole == 1)
    }

    /// Whether Redis answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.is_away())
    }
}

struct Keys {
    base: String,
    chat: String,
}

impl Keys {
    /// The braces keep all keys of a bot on one node of a cluster.
    fn new(bot: BotId, chat: i64) -> Self {
        let base = format!("botdeck:pace:{{{bot}}}");
        let chat = format!("{base}:{chat}");
        Self { base, chat }
    }
}

fn or_empty(number: Option<u32>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// At least one: Redis takes no expiry of zero.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
