//! The provider and Telegram at their worst.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use test_support::fake_telegram::Fault;

use crate::{
    load::{Load, well},
    world::{Mode, World, sized},
};

/// Of ten questions in a row so many meet a provider that fails, in each way in turn: luck has no say in how many those are. More
/// would open the provider's breaker (at half of all requests, with the second attempts) or, over minutes, use up the second attempts
/// that are granted (a fifth of the requests and thirty a minute); then some that fail only once would be told so.
fn fail_of_ten() -> usize {
    sized(4, 3)
}

/// Some fail only at the first attempt, which nobody may notice.
const WAYS: [(&str, bool); 13] = [
    ("[[status=500]][[once]]", false),
    ("[[status=503]][[once]]", false),
    ("[[status=429,1]][[once]]", false),
    ("[[drop]][[once]]", false),
    // A deadline that has passed is not tried again: the person has waited long enough.
    ("[[hang]][[once]]", true),
    ("[[status=500]]", true),
    ("[[status=429,1]]", true),
    ("[[status=429,30]]", true),
    ("[[drop]]", true),
    ("[[hang]]", true),
    ("[[cut]]", true),
    ("[[hangmid]]", true),
    ("[[chunks=8,100ms]][[cut]]", true),
];

fn badly(place: usize, random: &mut StdRng) -> (&'static str, bool) {
    let (ten, in_it) = (place / 10, place % 10);
    if in_it < fail_of_ten() {
        // The stride takes neighbours far apart, so that one way does not meet a provider several times in a row.
        WAYS[(ten * fail_of_ten() + in_it) * 5 % WAYS.len()]
    } else {
        well(place, random)
    }
}

/// More than a busy machine takes for an answer that does not fail.
const FIRST_TOKEN: &str = "6";
/// Twice the deadline for a first token (6 s here) or for the next one, a pause of a second, and the same again for those of
/// the same chat that are answered before.
const PROVIDER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn provider_fails_hangs_and_cuts() {
    let deadline = [0, 1].map(|replica| (replica, "BOTDECK_FIRST_TOKEN_SECONDS", FIRST_TOKEN));
    let mut world = World::start("provider fails and hangs", Mode::Polling, &deadline).await;
    let load = Load {
        people: 60,
        messages: sized(220, 3000),
        during: Duration::from_secs(sized(15, 200)),
    };
    world.write(load, badly);
    world.broken = load.messages * fail_of_ten() / 10;
    world.may_repeat = false;
    // Each failure is told to staff.
    world.log_a_message = 200;
    world.end(PROVIDER).await;
}

/// A flood limit is waited out (up to 5 s here), a call that failed is made again after 1 s, 2 s, 4 s…; in a chat this adds up. The
/// longest is a message that was perhaps never sent: looking for it takes up to 16 edits, and only six of them pass in 5 s; in the
/// group twenty a minute.
const TELEGRAM: Duration = Duration::from_secs(90);

/// Every so often the next call, whichever it is, meets one of the ways to fail, and each chat has a flood limit. Over minutes it has
/// to be less than a chat can bear: a search takes up to sixteen of its six calls in five seconds, and what is written meanwhile waits.
async fn telegram(mode: Mode) {
    let mut world = World::start("Telegram floods, 5xx, cuts", mode, &[]).await;
    world.app.telegram.flood(None, 6, Duration::from_secs(5));
    let load = Load {
        people: 40,
        messages: sized(200, 2000),
        during: Duration::from_secs(sized(20, 350)),
    };
    world.write(load, well);
    while world.busy() {
        tokio::time::sleep(Duration::from_millis(world.random.random_range(50..sized(500, 1500)))).await;
        let bad = |code: u16, words: &str| Fault::Status(code, words.to_owned());
        let fault = match world.random.random_range(0..9) {
            0 => bad(502, "Bad Gateway"),
            1 => bad(500, "Internal Server Error"),
            2 => Fault::RetryAfter(1),
            3 => Fault::DropBeforeHandling,
            4 => Fault::DropAfterHandling,
            5 => Fault::Delay(1500),
            6 => Fault::Html(502),
            // Said to have failed, and done all the same.
            7 => Fault::StatusAfterHandling(502),
            _ => bad(504, "Gateway Timeout"),
        };
        // What fails again at once makes the bot wait for longer each time; more of that than now and then would be an outage.
        let method = match world.random.random_range(0..20) {
            0 => "getUpdates",
            1..5 => "editMessageText",
            5..8 if mode == Mode::Webhook => "sendMessageDraft",
            5..8 => "editMessageText",
            _ => "sendMessage",
        };
        world.app.telegram.fail_next(method, 1, fault);
    }
    let met = world.app.telegram.calls().into_iter();
    world.broken = met
        .filter(|call| call.status.is_none_or(|status| status >= 429))
        .count();
    assert!(world.broken > load.messages / 10, "Telegram behaved: {}", world.broken);
    // What is repeated is the sending, never the asking.
    world.may_forget = false;
    world.end(TELEGRAM).await;
}

#[tokio::test]
async fn telegram_fails_polling() {
    telegram(Mode::Polling).await;
}

#[tokio::test]
async fn telegram_fails_webhook() {
    telegram(Mode::Webhook).await;
}

/// Nobody is answered for half a minute; the next attempt is due by then, or after a pause as long as all those before.
const OUTAGE: Duration = Duration::from_secs(110);

/// Telegram as a whole is away: first connections are cut, then something in between answers, then it says so itself.
#[tokio::test]
async fn telegram_is_away_for_half_a_minute() {
    let mut world = World::start("Telegram away for 30 s", Mode::Polling, &[]).await;
    let load = Load {
        people: 20,
        messages: sized(100, 400),
        during: Duration::from_secs(sized(12, 60)),
    };
    world.write(load, well);
    tokio::time::sleep(load.during / 2).await;
    for fault in [
        Fault::DropBeforeHandling,
        Fault::Html(502),
        Fault::Status(503, "Service Unavailable".to_owned()),
    ] {
        world.app.telegram.outage(Some(fault));
        world.broken += 1;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    world.app.telegram.outage(None);
    world.may_forget = false;
    world.end(OUTAGE).await;
}

/// Nothing is away; a delivery comes late by 0.8 s at most, and one that was said to be refused again after 0.1 s.
const DELIVERIES: Duration = Duration::from_secs(12);

/// As the network between Telegram and us may do it: late, twice, repeated behind later ones, and those of different chats in
/// any order. Within a chat Telegram itself keeps the order: it waits for the answer to one before it delivers the next.
#[tokio::test]
async fn deliveries_doubled_late_and_in_any_order() {
    let mut world = World::start("deliveries doubled, late", Mode::Webhook, &[]).await;
    world.balancer.misbehave(world.seed());
    world.app.telegram.duplicate_deliveries(1);
    let load = Load {
        people: 60,
        messages: sized(220, 5000),
        during: Duration::from_secs(sized(14, 320)),
    };
    world.write(load, well);
    tokio::time::sleep(load.during).await;
    world.broken = usize::try_from(world.balancer.misdeeds()).unwrap();
    assert!(world.broken > load.messages / 4, "the network behaved");
    world.may_repeat = false;
    world.end(DELIVERIES).await;
}
