//! Postgres and Redis: gone, back, silent and slow.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::{
    load::{Load, well},
    world::{Mode, World, sized},
};

/// Postgres is away for 3 s at most and recovers within one; a job whose end could not be written comes back with its lease
/// (9 s, and 2 s until somebody looks), perhaps only to meet the next crash.
const POSTGRES: Duration = Duration::from_secs(35);

/// Of a second without Postgres in each round, on each message.
const LOG_A_SECOND: usize = 180;

async fn postgres(mode: Mode) {
    let mut world = World::start("Postgres stops, crashes", mode, &[]).await;
    let rounds: u32 = sized(3, 20);
    let load = Load {
        people: 20,
        messages: rounds as usize * 80,
        during: rounds * Duration::from_secs(6),
    };
    world.write(load, well);
    let mut away = Duration::ZERO;
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(world.random.random_range(1500..4000))).await;
        let gone = Instant::now();
        // As it is when operators restart it, and as after a crash.
        world
            .servers
            .postgres_signal(if round % 2 == 0 { "INT" } else { "QUIT" });
        world.broken += 1;
        tokio::time::sleep(Duration::from_millis(world.random.random_range(0..3000))).await;
        world.servers.postgres_is_down().await;
        world.servers.start_again();
        away += gone.elapsed();
    }
    // Each job in hand says up to five times that Postgres is gone, and the longer it is away, the more of them there are. A stop in
    // good order tells each connection of it, and the driver says so of each.
    let said = LOG_A_SECOND * usize::try_from(away.as_millis()).unwrap_or(0) / 1000 / rounds as usize;
    world.log_a_message = (600 + said).min(1200);
    world.end(POSTGRES).await;
}

/// Two threads: while this one waits for servers to start and stop, people and Telegram go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_crashes_polling() {
    postgres(Mode::Polling).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_crashes_webhook() {
    postgres(Mode::Webhook).await;
}

/// Redis is speed, not truth: nobody may feel much of its absence. A message asks it a few times and gives each question up
/// after a fraction of a second; the rest is what a chat's own messages wait for each other.
const REDIS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_frozen_and_slow() {
    let mut world = World::start("Redis gone, frozen, slow", Mode::Polling, &[]).await;
    let rounds: u32 = sized(1, 6);
    let load = Load {
        // So many that few wait for an answer to what they have written before, which is no matter of Redis.
        people: 60,
        messages: rounds as usize * 220,
        during: rounds * Duration::from_secs(16),
    };
    world.write(load, well);
    let moment = |world: &mut World| Duration::from_millis(world.random.random_range(800..2500));
    for _ in 0..rounds {
        tokio::time::sleep(moment(&mut world)).await;
        world.servers.redis_signal("KILL");
        world.broken += 3;
        tokio::time::sleep(moment(&mut world)).await;
        world.servers.start_again();
        tokio::time::sleep(moment(&mut world)).await;
        world.servers.redis_signal("STOP");
        tokio::time::sleep(moment(&mut world) * 2).await;
        world.servers.redis_signal("CONT");
        tokio::time::sleep(moment(&mut world)).await;
        for delay in [30, 300] {
            world.redis.delay(Duration::from_millis(delay));
            tokio::time::sleep(moment(&mut world)).await;
        }
        world.redis.delay(Duration::ZERO);
    }
    world.may_repeat = false;
    // Once for all that use it; that it is back is said when it has answered for longer than is left here.
    world.must_say = &["Redis is not reached", "Redis is reached"];
    world.end(REDIS).await;
}
