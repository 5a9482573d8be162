//! One pace over all replicas: senders of two processes' worth at one Redis and one strict fake Bot API.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bot::{
    telegram::{Address, ChatOut, Pacer, Sender, TelegramClient},
    texts,
};
use domain::{BotId, views::RichText};
use secrecy::SecretString;
use services::{RateLimiter, SharedPace, Urgency};
use test_support::fake_telegram::{Drafts, FakeTelegram, Fault, User};

const TOKEN: &str = "123456:secret-TOKEN_part";
const ANNA: i64 = 7;
const BORIS: i64 = 8;

/// A Redis that a test may break.
struct Redis {
    dir: PathBuf,
    process: Child,
}

impl Redis {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("botdeck-test-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).unwrap();
        let process = Self::spawn(&dir);
        Self { dir, process }
    }

    fn spawn(dir: &std::path::Path) -> Child {
        Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir)
            .arg("--unixsocket")
            .arg(dir.join("redis.sock"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.join("redis.sock").display())
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::spawn(&self.dir);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What one process has of a bot.
struct Replica {
    pace: Arc<SharedPace>,
    sender: Sender,
}

/// One bot, and as many processes as are asked for.
struct Scene {
    telegram: FakeTelegram,
    redis: Redis,
    bot: BotId,
}

impl Scene {
    async fn new() -> Self {
        let telegram = FakeTelegram::start().await.unwrap();
        telegram.add_bot(TOKEN, "deck_bot");
        for id in [ANNA, BORIS] {
            telegram.send_text(TOKEN, &User::new(id, "Anna"), "hello");
        }
        for chat in 100..200 {
            telegram.open_chat(TOKEN, &User::new(chat, "Somebody"));
        }
        Self {
            telegram,
            redis: Redis::start(),
            bot: BotId(uuid::Uuid::now_v7()),
        }
    }

    async fn replica(&self) -> Replica {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let rate = RateLimiter::new(Some(&self.redis.url())).unwrap();
        // The first call connects; it must not be what decides.
        until("Redis answers", || async { rate.ping().await.is_ok() }).await;
        let pace = SharedPace::beside(&rate);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = TelegramClient::new(http, &self.telegram.url(), SecretString::from(TOKEN));
        let pacer = Pacer::shared(pace.clone(), self.bot);
        Replica {
            pace,
            sender: Sender::new(client, Arc::new(pacer)),
        }
    }

    fn calls(&self, method: &str) -> usize {
        self.telegram.calls_of(method).len()
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn to(chat_id: i64) -> Address {
    Address {
        chat_id,
        thread_id: None,
        reply_to: None,
        private: true,
        urgency: Urgency::Answer,
        ours_until: None,
    }
}

fn plain(text: &str) -> RichText {
    texts::rich(text)
}

#[tokio::test]
async fn a_pause_that_one_replica_is_asked_for_is_kept_by_all() {
    let scene = Scene::new().await;
    let (one, two) = (scene.replica().await, scene.replica().await);
    // Every kind of call is told to wait, each by a 429 of its own.
    scene.telegram.drafts_are(Drafts::Taken);
    let id = one.sender.send(&to(ANNA), &plain("0")).await.unwrap();
    scene.telegram.fail_next("sendChatAction", 1, Fault::RetryAfter(2));
    let asked = Instant::now();
    one.sender.typing(&to(ANNA)).await.unwrap();
    // What may be skipped is skipped at once, by both.
    for replica in [&one, &two] {
        replica.sender.typing(&to(ANNA)).await.unwrap();
        assert!(!replica.sender.may_preview(&to(ANNA)).await);
        assert_eq!(replica.sender.preview_edit(&to(ANNA), id, &plain("1")).await, Ok(false));
    }
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    assert_eq!((scene.calls("sendChatAction"), scene.calls("editMessageText")), (1, 0));
    // Another chat is not concerned.
    two.sender.send(&to(BORIS), &plain("at once")).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    // What must arrive waits, with the one that was never told.
    two.sender.send(&to(ANNA), &plain("late")).await.unwrap();
    let waited = asked.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_millis(3500)).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(scene.telegram.flood_violations(), 0);
}

#[tokio::test]
async fn two_chats_limited_at_once_silence_the_bot_on_all_replicas() {
    let scene = Scene::new().await;
    let (one, two, three) = (scene.replica().await, scene.replica().await, scene.replica().await);
    scene.telegram.fail_next("sendChatAction", 2, Fault::RetryAfter(2));
    let asked = Instant::now();
    one.sender.typing(&to(ANNA)).await.unwrap();
    two.sender.typing(&to(BORIS)).await.unwrap();
    // A chat and a replica that had no part in it.
    three.sender.typing(&to(100)).await.unwrap();
    one.sender.typing(&to(101)).await.unwrap();
    assert_eq!(scene.calls("sendChatAction"), 2);
    three.sender.send(&to(102), &plain("late")).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    // What has waited does not go off all at once.
    let sends = (103..160).map(|chat| {
        let replica = [&one, &two, &three][usize::try_from(chat).unwrap() % 3];
        async move { replica.sender.send(&to(chat), &plain("late")).await.unwrap() }
    });
    let all = Instant::now();
    futures::future::join_all(sends).await;
    let took = all.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(5)).contains(&took),
        "57 answers took {took:?}, at 25 a second"
    );
    assert_eq!(scene.telegram.flood_violations(), 0);
}

/// Also between replicas, and for as long as a second is too short for all who wait.
#[tokio::test]
async fn answers_go_before_commands_on_all_replicas() {
    let scene = Scene::new().await;
    let replicas = [scene.replica().await, scene.replica().await];
    let pacers = replicas.map(|replica| Arc::new(Pacer::shared(replica.pace, scene.bot)));
    for chat in [ANNA, BORIS] {
        pacers[0].limited(chat, Duration::from_millis(900)).await;
    }
    let order: Arc<std::sync::Mutex<Vec<Urgency>>> = Arc::default();
    let waiting = (100..180).map(|chat| {
        let at = usize::try_from(chat).unwrap();
        let (pacer, order) = (pacers[at % 2].clone(), order.clone());
        // The less urgent come first.
        let urgency = if chat < 140 { Urgency::Command } else { Urgency::Answer };
        tokio::spawn(async move {
            loop {
                let wait = pacer.take(chat, true, urgency).await;
                if wait.is_zero() {
                    break;
                }
                tokio::time::sleep(wait).await;
            }
            order.lock().unwrap().push(urgency);
        })
    });
    for done in futures::future::join_all(waiting).await {
        done.unwrap();
    }
    let order = order.lock().unwrap();
    let answers = order[..45]
        .iter()
        .filter(|urgency| **urgency == Urgency::Answer)
        .count();
    assert!(
        answers >= 38,
        "{answers} of 40 answers are among the first 45: {order:?}"
    );
}

/// Twenty a minute are known beforehand; and two groups that are too fast all the same do not silence everybody else.
#[tokio::test]
async fn busy_groups_wait_for_themselves_alone() {
    let scene = Scene::new().await;
    let (one, two) = (scene.replica().await, scene.replica().await);
    let pacers = [one, two].map(|replica| Pacer::shared(replica.pace, scene.bot));
    for group in [-101, -102] {
        let mut taken = 0;
        for call in 0..30 {
            let wait = pacers[call % 2].take(group, false, Urgency::Answer).await;
            taken += usize::from(wait.is_zero());
        }
        assert_eq!(taken, 20);
    }
    let wait = pacers[1].take(-101, false, Urgency::Answer).await;
    assert!(wait > Duration::from_secs(50), "{wait:?}");
    for group in [-101, -102] {
        pacers[0].limited(group, Duration::from_secs(5)).await;
    }
    assert!(pacers[0].take(100, true, Urgency::Answer).await.is_zero());
    assert!(pacers[1].take(101, true, Urgency::Answer).await.is_zero());
    // Neither do two people whose chats were too fast; of a third something is concluded.
    for person in [102, 103, 104] {
        for _ in 0..3 {
            assert!(pacers[0].take(person, true, Urgency::Answer).await.is_zero());
        }
        pacers[1].limited(person, Duration::from_secs(5)).await;
        let silent = !pacers[0].take(110, true, Urgency::Answer).await.is_zero();
        assert_eq!(silent, person == 104);
    }
}

#[tokio::test]
async fn previews_of_all_replicas_are_counted_together() {
    let scene = Scene::new().await;
    let (one, two) = (scene.replica().await, scene.replica().await);
    let begin = Instant::now();
    let mut shown = 0;
    while begin.elapsed() < Duration::from_millis(2500) {
        for replica in [&one, &two] {
            shown += usize::from(replica.sender.may_preview(&to(ANNA)).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shown, 3, "one at once and two more in two seconds and a half");
    // Of all chats together: twenty a second; answers go beyond.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let begin = Instant::now();
    let mut shown = 0;
    for chat in 100..200 {
        let replica = if chat % 2 == 0 { &one } else { &two };
        shown += usize::from(replica.sender.may_preview(&to(chat)).await);
    }
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    assert_eq!(shown, 20);
    one.sender.send(&to(150), &plain("an answer")).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(1000), "{:?}", begin.elapsed());
}

/// Nobody waits for a Redis that is not there, a stricter pace is kept without it, and it is used again soon after it is back.
async fn outlived(scene: &mut Scene, gone: impl FnOnce(&mut Redis), back: impl FnOnce(&mut Redis)) {
    let (one, two) = (scene.replica().await, scene.replica().await);
    assert!(one.sender.may_preview(&to(ANNA)).await);
    gone(&mut scene.redis);
    let mut slowest = Duration::ZERO;
    let begin = Instant::now();
    for chat in 100..150 {
        let call = Instant::now();
        one.sender.typing(&to(chat)).await.unwrap();
        slowest = slowest.max(call.elapsed());
    }
    let took = begin.elapsed();
    assert!(slowest < Duration::from_millis(250), "a call waited {slowest:?}");
    assert!(
        took < Duration::from_millis(900),
        "fifty calls waited {took:?} together"
    );
    // Half of what the bot has with Redis; the preview before counts when it was in the same second.
    assert!((9..=10).contains(&scene.calls("sendChatAction")));
    assert!(!one.pace.is_up());
    // What this process was asked to wait for is kept all the same.
    scene.telegram.fail_next("sendMessage", 1, Fault::RetryAfter(1));
    let begin = Instant::now();
    one.sender.send(&to(ANNA), &plain("late")).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    back(&mut scene.redis);
    let begin = Instant::now();
    until("Redis is used again", || async { one.pace.is_up() }).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // And what it says counts: the other replica hears of a pause.
    until("the other replica has it too", || async {
        let _ = two.sender.may_preview(&to(199)).await;
        two.pace.is_up()
    })
    .await;
    scene.telegram.fail_next("sendChatAction", 1, Fault::RetryAfter(2));
    let calls = scene.calls("sendChatAction");
    until("somebody is told to wait", || async {
        one.sender.typing(&to(BORIS)).await.unwrap();
        scene.calls("sendChatAction") > calls
    })
    .await;
    two.sender.typing(&to(BORIS)).await.unwrap();
    assert_eq!(scene.calls("sendChatAction"), calls + 1);
    assert_eq!(scene.telegram.flood_violations(), 0);
}

#[tokio::test]
async fn a_redis_that_is_killed_is_outlived() {
    let mut scene = Scene::new().await;
    outlived(&mut scene, Redis::kill, Redis::start_again).await;
}

#[tokio::test]
async fn a_redis_that_is_paused_is_outlived() {
    let mut scene = Scene::new().await;
    outlived(&mut scene, |redis| redis.signal("-STOP"), |redis| redis.signal("-CONT")).await;
}

#[tokio::test]
async fn without_any_redis_the_pace_is_a_stricter_one() {
    let scene = Scene::new().await;
    let rate = RateLimiter::new(None).unwrap();
    let pacer = Pacer::shared(SharedPace::beside(&rate), scene.bot);
    let mut shown = 0;
    for chat in 100..200 {
        shown += usize::from(pacer.take_preview(chat, true).await);
    }
    assert_eq!(shown, 10);
    assert!(pacer.take(200, true, Urgency::Answer).await.is_zero());
}

/// What the shared pace costs each call: far less than the call itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_costs_little() {
    let scene = Scene::new().await;
    let replica = scene.replica().await;
    let pacer = Arc::new(Pacer::shared(replica.pace, scene.bot));
    let (hands, each) = (50, 100);
    let begin = Instant::now();
    let all = (0..hands).map(|hand| {
        let pacer = pacer.clone();
        tokio::spawn(async move {
            for _ in 0..each {
                assert!(pacer.take(hand, true, Urgency::Answer).await.is_zero());
            }
        })
    });
    for done in futures::future::join_all(all).await {
        done.unwrap();
    }
    let each = begin.elapsed() / u32::try_from(hands * each).unwrap();
    println!("a call is allowed in {each:?}, fifty at once");
    assert!(each < Duration::from_millis(2), "{each:?}");
}
