//! The pace of one bot. Time comes in as an argument where the count is kept, so that tests state exact moments.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::BotId;
use services::{Ask, Held, RECOVERY, SharedPace, Urgency, window};
use tokio::time::Instant;

const PREVIEW_PRIVATE: Duration = Duration::from_secs(1);
const PREVIEW_GROUP: Duration = Duration::from_secs(3);
/// Added to what Telegram asks for: its clock counts whole seconds.
const MARGIN: Duration = Duration::from_millis(100);
/// After a pause answers go first: what is less urgent lets them pass.
const YIELD: Duration = Duration::from_millis(50);
/// A chat that was too fast gets answers alone for so long after its pause: what previews use up there, the next answer waits for.
const CALM: Duration = Duration::from_secs(15);
/// After this time without a call a chat is forgotten.
const IDLE: Duration = Duration::from_secs(60);
const CHATS_BEFORE_PRUNING: usize = 1024;

/// Every call of a bot is announced here first. Shared by all who send for the bot in this process, and through Redis with all
/// other processes; where that is not there, a count of this process takes its place, which is stricter.
#[derive(Default)]
pub struct Pacer {
    local: Mutex<State>,
    shared: Option<(Arc<SharedPace>, BotId)>,
    listener: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

/// How many calls of the bot a second may have seen for one more of this urgency: without and after a pause of the whole bot.
/// About 30 calls a second are Telegram's limit. Answers and commands are sent beyond it all the same until Telegram refuses, since nobody knows
/// the limit of a bot exactly, and bots that are large have a higher one.
fn ration(urgency: Urgency) -> (Option<u32>, u32) {
    match urgency {
        Urgency::Answer => (None, 25),
        Urgency::Command => (None, 15),
        Urgency::Preview => (Some(20), 10),
        Urgency::Broadcast => (Some(15), 5),
    }
}

/// How many calls a group may have seen within its minute for one more of this urgency: twenty are Telegram's limit. A person's chat
/// takes whatever its own second brings.
fn ration_in(chat: i64, urgency: Urgency) -> Option<u32> {
    let most = match urgency {
        Urgency::Answer => window(chat).0,
        Urgency::Command => 18,
        Urgency::Preview => 10,
        Urgency::Broadcast => 5,
    };
    (chat < 0).then_some(most)
}

/// Several replicas that do not know of each other must not be too fast together.
fn stricter((most, after_pause): (Option<u32>, u32)) -> (Option<u32>, u32) {
    (most.map(|most| most / 2), after_pause / 2)
}

impl Pacer {
    /// One that shares its pace with all replicas.
    pub fn shared(pace: Arc<SharedPace>, bot: BotId) -> Self {
        Self {
            local: Mutex::default(),
            shared: Some((pace, bot)),
            listener: None,
        }
    }

    /// `listener` hears of each pause that Telegram asks this process for.
    pub fn on_pause(mut self, listener: impl Fn() + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Takes the right to show the next state of an answer now. `false`: skip it, the next one will say more anyway.
    pub async fn take_preview(&self, chat: i64, private: bool) -> bool {
        self.ask(chat, private, Urgency::Preview, true).await.is_zero()
    }

    /// Whether Telegram has asked for a pause there since a call was allowed.
    pub fn pauses(&self, chat: i64) -> bool {
        !self.with(|state| state.pause(chat, Instant::now())).is_zero()
    }

    /// How long the call still has to wait; zero takes the right to make it now.
    pub async fn take(&self, chat: i64, private: bool, urgency: Urgency) -> Duration {
        self.ask(chat, private, urgency, false).await
    }

    async fn ask(&self, chat: i64, private: bool, urgency: Urgency, heeds_gap: bool) -> Duration {
        let now = Instant::now();
        // What is known here needs no asking. It also holds when Redis was lost together with what it knew.
        let held = self.with(|state| state.held(chat, urgency, now));
        if !held.is_zero() {
            return held;
        }
        if let Some((pace, bot)) = &self.shared {
            let (most, most_after_pause) = ration(urgency);
            let ask = Ask {
                bot: *bot,
                chat,
                most,
                most_after_pause,
                heeds_gap,
                gap: gap(private, false),
                most_in_chat: ration_in(chat, urgency),
            };
            if let Some(held) = pace.take(&ask).await {
                return self.learn(chat, private, held, urgency, Instant::now());
            }
        }
        self.take_locally(chat, private, urgency, heeds_gap, Instant::now())
    }

    /// What Redis said: a pause of other replicas' making is kept here too.
    fn learn(&self, chat: i64, private: bool, held: Held, urgency: Urgency, now: Instant) -> Duration {
        self.with(|state| {
            if held == Held::default() {
                state.count(chat, gap(private, false), now);
                return Duration::ZERO;
            }
            if !held.bot.is_zero() {
                state.hold_bot(now + held.bot);
            }
            if !held.chat.is_zero() {
                state.hold_chat(chat, now + held.chat, now);
            }
            let pause = held.bot.max(held.chat);
            // Also when a second is full: of those who wait for the next one the more urgent go first.
            pause.max(held.full) + lets_pass(urgency)
        })
    }

    fn take_locally(&self, chat: i64, private: bool, urgency: Urgency, heeds_gap: bool, now: Instant) -> Duration {
        self.with(|state| {
            let held = state.held(chat, urgency, now);
            if !held.is_zero() {
                return held;
            }
            let full = state.full(stricter(ration(urgency)), now);
            let wait = full
                .max(state.full_in(chat, ration_in(chat, urgency), now))
                .max(if heeds_gap {
                    state.gap(chat, now)
                } else {
                    Duration::ZERO
                });
            if wait.is_zero() {
                state.count(chat, gap(private, true), now);
                return wait;
            }
            wait + lets_pass(urgency)
        })
    }

    /// Telegram has asked for a pause in a chat. All replicas keep it from now on.
    pub async fn limited(&self, chat: i64, retry_after: Duration) {
        let now = Instant::now();
        self.limited_locally(chat, retry_after, now);
        if let Some(listener) = &self.listener {
            listener();
        }
        if let Some((pace, bot)) = &self.shared
            && pace.limited(*bot, chat, retry_after + MARGIN).await == Some(true)
        {
            self.with(|state| state.hold_bot(now + retry_after + MARGIN));
        }
    }

    /// True when it is the bot that has to be silent.
    fn limited_locally(&self, chat: i64, retry_after: Duration, now: Instant) -> bool {
        self.with(|state| {
            let until = now + retry_after + MARGIN;
            state.hold_chat(chat, until, now);
            let whole = state.is_whole(chat, now);
            if whole {
                state.hold_bot(until);
            }
            whole
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.local.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn lets_pass(urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Answer => Duration::ZERO,
        Urgency::Command => YIELD,
        Urgency::Preview | Urgency::Broadcast => YIELD * 2,
    }
}

/// A group's topics may be answered by different replicas, each with a count of its own; one person's chat is hardly ever.
fn gap(private: bool, alone: bool) -> Duration {
    match (private, alone) {
        (true, _) => PREVIEW_PRIVATE,
        (false, false) => PREVIEW_GROUP,
        (false, true) => PREVIEW_GROUP * 2,
    }
}

/// What this process knows by itself.
#[derive(Debug, Default)]
struct State {
    chats: HashMap<i64, Chat>,
    bot_until: Option<Instant>,
    /// The people's chats that were limited last, when, and whether they had kept to their own pace.
    limited: Vec<(i64, Instant, bool)>,
    /// The calls of the second that began then.
    second: Option<(Instant, u32)>,
    prune_at: usize,
}

#[derive(Debug)]
struct Chat {
    last_call: Instant,
    /// Before this nothing but an answer is worth a call.
    next_preview: Instant,
    until: Option<Instant>,
    /// Before this it shows no previews.
    calm_until: Option<Instant>,
    /// The calls of the [`window`] that began then.
    window: (Instant, u32),
}

impl State {
    /// Whether it can only be the bot that is too fast, now that this chat is limited: see `SharedPace::limited`.
    fn is_whole(&mut self, chat: i64, now: Instant) -> bool {
        if chat < 0 {
            return false;
        }
        let kept_pace = self.calls_in(chat, now).1 <= window(chat).0;
        self.limited
            .retain(|(other, at, _)| *other != chat && now.saturating_duration_since(*at) <= Duration::from_secs(1));
        self.limited.push((chat, now, kept_pace));
        let paced = self.limited.iter().filter(|(.., kept_pace)| *kept_pace).count();
        self.limited.len() >= 3 || (kept_pace && paced >= 2)
    }

    /// The calls that the chat's window has seen, and when it began.
    fn calls_in(&self, chat: i64, now: Instant) -> (Instant, u32) {
        let held = self.chats.get(&chat).map(|held| held.window);
        held.filter(|(begin, _)| now.saturating_duration_since(*begin) < window(chat).1)
            .unwrap_or((now, 0))
    }

    /// How long the chat's own ration is used up.
    fn full_in(&self, chat: i64, most: Option<u32>, now: Instant) -> Duration {
        let (begin, calls) = self.calls_in(chat, now);
        match most {
            Some(most) if calls >= most => window(chat).1.saturating_sub(now.saturating_duration_since(begin)),
            _ => Duration::ZERO,
        }
    }

    fn pause(&self, chat: i64, now: Instant) -> Duration {
        let chat = self.chats.get(&chat).and_then(|chat| chat.until);
        chat.max(self.bot_until)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// How long a call has to wait whatever the rations say.
    fn held(&self, chat: i64, urgency: Urgency, now: Instant) -> Duration {
        let pause = self.pause(chat, now);
        if !pause.is_zero() {
            return pause + lets_pass(urgency);
        }
        let calm = self.chats.get(&chat).and_then(|chat| chat.calm_until);
        match (urgency, calm) {
            (Urgency::Preview, Some(until)) => until.saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    fn hold_bot(&mut self, until: Instant) {
        self.bot_until = self.bot_until.max(Some(until));
    }

    fn hold_chat(&mut self, chat: i64, until: Instant, now: Instant) {
        let chat = self.chat(chat, now);
        chat.until = chat.until.max(Some(until));
        chat.calm_until = chat.calm_until.max(Some(until + CALM));
    }

    /// How long the ration of this second is used up.
    fn full(&self, (most, after_pause): (Option<u32>, u32), now: Instant) -> Duration {
        let recovers = self
            .bot_until
            .is_some_and(|until| now.saturating_duration_since(until) < RECOVERY);
        let most = if recovers { Some(after_pause) } else { most };
        let Some((begin, calls)) = self.this_second(now) else {
            return Duration::ZERO;
        };
        match most {
            Some(most) if calls >= most => Duration::from_secs(1).saturating_sub(now.saturating_duration_since(begin)),
            _ => Duration::ZERO,
        }
    }

    fn gap(&self, chat: i64, now: Instant) -> Duration {
        self.chats
            .get(&chat)
            .map_or(Duration::ZERO, |chat| chat.next_preview.saturating_duration_since(now))
    }

    fn this_second(&self, now: Instant) -> Option<(Instant, u32)> {
        self.second
            .filter(|(begin, _)| now.saturating_duration_since(*begin) < Duration::from_secs(1))
    }

    fn count(&mut self, chat: i64, gap: Duration, now: Instant) {
        self.second = match self.this_second(now) {
            None => Some((now, 1)),
            Some((begin, calls)) => Some((begin, calls + 1)),
        };
        let (begin, calls) = self.calls_in(chat, now);
        let chat = self.chat(chat, now);
        chat.next_preview = now + gap;
        chat.window = (begin, calls + 1);
    }

    fn chat(&mut self, id: i64, now: Instant) -> &mut Chat {
        if self.chats.len() >= self.prune_at.max(CHATS_BEFORE_PRUNING) {
            self.chats.retain(|_, chat| {
                now.saturating_duration_since(chat.last_call) < IDLE || chat.until.is_some_and(|until| until > now)
            });
            // So that chats that are all busy are not gone through at every call.
            self.prune_at = self.chats.len() * 2;
        }
        let chat = self.chats.entry(id).or_insert(Chat {
            last_call: now,
            next_preview: now,
            until: None,
            calm_until: None,
            window: (now, 0),
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

    fn preview(pacer: &Pacer, chat: i64, private: bool, now: Instant) -> bool {
        pacer.take_locally(chat, private, Urgency::Preview, true, now).is_zero()
    }

    fn answer(pacer: &Pacer, chat: i64, now: Instant) -> Duration {
        pacer.take_locally(chat, true, Urgency::Answer, false, now)
    }

    #[tokio::test]
    async fn previews_are_skipped_and_answers_go_at_once() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        assert!(preview(&pacer, 1, true, now));
        assert!(!preview(&pacer, 1, true, now + ms(999)));
        assert_eq!(answer(&pacer, 1, now + ms(999)), Duration::ZERO);
        assert!(!preview(&pacer, 1, true, now + ms(1500)), "the answer counts too");
        assert!(preview(&pacer, 1, true, now + ms(2000)));
        assert!(preview(&pacer, -2, false, now));
        assert!(!preview(&pacer, -2, false, now + ms(5900)), "alone it is twice as slow");
        assert!(preview(&pacer, -2, false, now + ms(6000)));
    }

    #[tokio::test]
    async fn a_limited_chat_waits_and_others_do_not() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.limited_locally(1, ms(5000), now);
        assert_eq!(answer(&pacer, 1, now), ms(5100));
        assert!(!preview(&pacer, 1, true, now + ms(5000)));
        assert_eq!(answer(&pacer, 2, now), Duration::ZERO);
        assert_eq!(answer(&pacer, 1, now + ms(5100)), Duration::ZERO);
        // A shorter pause does not end a longer one.
        pacer.limited_locally(3, ms(5000), now);
        pacer.limited_locally(3, ms(1000), now);
        assert_eq!(answer(&pacer, 3, now), ms(5100));
    }

    #[tokio::test]
    async fn a_chat_that_was_too_fast_gets_answers_alone_for_a_while() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.limited_locally(1, ms(5000), now);
        let over = now + ms(5100);
        assert_eq!(answer(&pacer, 1, over), Duration::ZERO);
        assert!(!preview(&pacer, 1, true, over + CALM - ms(1)));
        assert!(preview(&pacer, 1, true, over + CALM));
        assert!(preview(&pacer, 2, true, over), "the others as ever");
    }

    #[tokio::test]
    async fn two_chats_limited_within_a_second_mean_the_bot() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        assert!(!pacer.limited_locally(1, ms(5000), now));
        assert!(!pacer.limited_locally(2, ms(3000), now + ms(1001)));
        assert_eq!(answer(&pacer, 3, now + ms(1001)), Duration::ZERO);
        assert!(pacer.limited_locally(1, ms(3000), now + ms(1500)));
        assert_eq!(answer(&pacer, 3, now + ms(1500)), ms(3100));
    }

    /// Each for itself, as long as it had more calls than its minute takes.
    #[tokio::test]
    async fn busy_groups_do_not_silence_the_bot() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        for group in [-1, -2] {
            let sent = (0..30).filter(|_| pacer.take_locally(group, false, Urgency::Answer, false, now).is_zero());
            assert_eq!(sent.count(), 20, "twenty a minute");
            let wait = pacer.take_locally(group, false, Urgency::Answer, false, now + ms(59_000));
            assert_eq!(wait, ms(1000));
            assert!(!pacer.limited_locally(group, ms(5000), now));
        }
        assert_eq!(answer(&pacer, 3, now), Duration::ZERO);
        // Of three people something is, however fast their chats were.
        for person in [4, 5, 6] {
            for _ in 0..5 {
                pacer.with(|state| state.count(person, Duration::ZERO, now));
            }
            assert_eq!(pacer.limited_locally(person, ms(5000), now), person == 6);
        }
    }

    #[tokio::test]
    async fn after_a_pause_the_more_urgent_goes_first_and_gets_more_of_each_second() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.limited_locally(1, ms(900), now);
        pacer.limited_locally(2, ms(900), now);
        let wait = |urgency| pacer.take_locally(3, true, urgency, false, now);
        let order = [Urgency::Answer, Urgency::Command, Urgency::Preview, Urgency::Broadcast];
        assert_eq!(order.map(wait), [ms(1000), ms(1050), ms(1100), ms(1100)]);
        let mut sent = Vec::new();
        let over = now + ms(1000);
        for urgency in [Urgency::Broadcast, Urgency::Preview, Urgency::Command, Urgency::Answer] {
            let passed = (0..100).filter(|chat| pacer.take_locally(*chat, true, urgency, false, over).is_zero());
            sent.push(passed.count());
        }
        assert_eq!(sent, [2, 3, 2, 5], "together 12, the half of 25");
        let wait = |urgency| pacer.take_locally(4, true, urgency, false, over + ms(400));
        let waits = [Urgency::Answer, Urgency::Command, Urgency::Broadcast].map(wait);
        assert_eq!(
            waits,
            [ms(600), ms(650), ms(700)],
            "who finds the second used up waits for the next, the more urgent a little less"
        );
        assert_eq!(answer(&pacer, 4, over + ms(1000)), Duration::ZERO);
        // Ten seconds later nothing is rationed but previews.
        let later = over + RECOVERY;
        assert!((0..100).all(|chat| answer(&pacer, chat, later).is_zero()));
    }

    #[tokio::test]
    async fn previews_leave_room_for_answers() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        let sent = (0..100).filter(|chat| preview(&pacer, *chat, true, now)).count();
        assert_eq!(sent, 10);
        assert_eq!(answer(&pacer, 200, now), Duration::ZERO);
        assert!(preview(&pacer, 201, true, now + ms(1000)));
    }

    #[tokio::test]
    async fn idle_chats_are_forgotten() {
        let (pacer, mut now) = (Pacer::default(), Instant::now());
        pacer.limited_locally(-1, Duration::from_secs(3600), now);
        for chat in 0..10_000 {
            answer(&pacer, chat, now);
            now += ms(100);
        }
        assert!(pacer.with(|state| state.chats.len()) <= 2048);
        assert!(!answer(&pacer, -1, now).is_zero(), "a pause in force is kept");
    }
}
