//! The replicas themselves: killed, frozen, restarted in order, and with clocks that differ.

use std::time::Duration;

use rand::Rng;

use crate::{
    load::{Load, at_length, well},
    world::{Mode, World, full, sized, tell},
};

/// A killed worker's jobs come back when its lease of 9 s has run out and somebody looked (every 2 s), a killed poller's bot
/// after 9 s and a round of 3 s. With kills this close together a job meets several of them, and others of its chat wait for it. In the
/// long form somebody is killed every 2.6 s for more than four minutes while each person writes every second: chats fall behind,
/// and a job waits for the eleven seconds of each job before it.
fn killed() -> Duration {
    Duration::from_secs(sized(75, 240))
}

async fn kills(mode: Mode) {
    let mut world = World::start("kill -9 of any replica", mode, &[]).await;
    let kills = sized(8, 100);
    let gap = 300..sized(4500, 5000);
    let moments: Vec<(Duration, usize)> = (0..kills)
        .map(|_| {
            let moment = Duration::from_millis(world.random.random_range(gap.clone()));
            (moment, world.random.random_range(0..2))
        })
        .collect();
    let during = moments.iter().map(|(moment, _)| *moment).sum();
    let load = Load {
        people: 20,
        messages: sized(300, 5000),
        during,
    };
    world.write(load, well);
    for (moment, number) in moments {
        tokio::time::sleep(moment).await;
        world.kill(number).await;
    }
    world.must_repeat = true;
    world.end(killed()).await;
}

#[tokio::test]
async fn killed_polling() {
    kills(Mode::Polling).await;
}

#[tokio::test]
async fn killed_webhook() {
    kills(Mode::Webhook).await;
}

/// Lease (9 s), the next look for lost jobs (2 s) or the next round of intake (3 s), then the chat's own backlog. What was
/// promised is 30 s.
const FROZEN: Duration = Duration::from_secs(30);
/// Longer than the lease, so that others have taken over when it wakes.
const FREEZE: Duration = Duration::from_secs(13);

/// One freeze has to be over before the next: chats in which people go on writing catch up slowly, and what two freezes add up to
/// is no measure of one.
const CAUGHT_UP: &str =
    "SELECT count(*) FROM jobs WHERE state IN ('ready', 'running') AND created_at < now() - interval '3 seconds'";

/// Frozen while it has jobs in hand, awake again when others have done them: what it still writes must be refused.
async fn freezes(mode: Mode) {
    let mut world = World::start("SIGSTOP beyond the lease", mode, &[]).await;
    let rounds = sized(1, 6);
    let load = Load {
        people: 40,
        messages: sized(200, 2400),
        during: Duration::from_secs(sized(18, 220)),
    };
    world.write(load, at_length);
    for round in 0..rounds {
        while round > 0 && world.busy() && world.number(CAUGHT_UP).await != Some(0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_millis(world.random.random_range(500..2000))).await;
        let frozen = world.freeze(3).await;
        world.broken += 1;
        tokio::time::sleep(FREEZE).await;
        world.replicas[frozen].process.signal("CONT");
    }
    let taken_over = world.number("SELECT count(*) FROM jobs WHERE attempts > 1").await;
    assert!(taken_over > Some(0), "nothing was taken over from the frozen replica");
    world.end(FROZEN).await;
}

#[tokio::test]
async fn frozen_polling() {
    freezes(Mode::Polling).await;
}

#[tokio::test]
async fn frozen_webhook() {
    freezes(Mode::Webhook).await;
}

/// The lease is given back at the end, but only once running answers are complete; another replica looks every 3 s.
const ROLLED: Duration = Duration::from_secs(12);

async fn rolls(mode: Mode) {
    let mut world = World::start("rolling restart, SIGTERM", mode, &[]).await;
    let rounds = sized(2, 10);
    let load = Load {
        people: 40,
        messages: rounds * 100,
        during: Duration::from_secs(rounds as u64 * 8),
    };
    world.write(load, well);
    for _ in 0..rounds {
        for number in 0..2 {
            tokio::time::sleep(Duration::from_millis(world.random.random_range(500..2000))).await;
            world.roll(number).await;
        }
    }
    world.may_repeat = false;
    world.end(ROLLED).await;
}

#[tokio::test]
async fn rolled_polling() {
    rolls(Mode::Polling).await;
}

#[tokio::test]
async fn rolled_webhook() {
    rolls(Mode::Webhook).await;
}

/// Nothing breaks but the clocks, and one kill shows that leases do not mind; its 9 s and the looks after it bound this.
const SKEWED: Duration = Duration::from_secs(25);

/// Where Debian's package `faketime` puts it; `bin/test` installs that.
fn faketime() -> Option<String> {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let path = format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1");
    std::path::Path::new(&path).is_file().then_some(path)
}

#[tokio::test]
async fn clocks_half_a_minute_apart() {
    let Some(library) = faketime() else {
        let missing = "libfaketime is not installed (Debian's package faketime)";
        assert!(!full(), "{missing}");
        // Where the others' lines stand, so that nobody takes it for passed.
        tell(&format!("clocks 30 s apart          SKIPPED: {missing}"));
        return;
    };
    // Only the clock on the wall: timers must go on as they do on a machine whose clock is wrong.
    let ahead = [
        (1, "LD_PRELOAD", library.as_str()),
        (1, "FAKETIME", "+30s"),
        (1, "FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut world = World::start("clocks 30 s apart", Mode::Webhook, &ahead).await;
    let load = Load {
        people: 40,
        messages: sized(180, 3000),
        during: Duration::from_secs(sized(14, 200)),
    };
    world.write(load, well);
    tokio::time::sleep(load.during / 2).await;
    let apart = "SELECT max(extract(epoch FROM received_at - now()))::bigint FROM updates";
    let ahead_by = world.number(apart).await;
    assert!(ahead_by >= Some(15), "the clocks are not apart: {ahead_by:?} s");
    let number = world.random.random_range(0..2);
    world.kill(number).await;
    world.end(SKEWED).await;
}
