//! Two replicas on servers of their own, people who write, and the verdict in the end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use sqlx::AssertSqlSafe;
use test_support::{
    TestApp,
    app::{OrFail, PATIENCE, Process, TOKEN, free_port},
    fake_telegram::Drafts,
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    balancer::Balancer,
    check::{Verdict, replies_to_stop, signed},
    load::{self, Act, Asked, Load, Manner, Question, Script, joined},
    proxy::Proxy,
    servers::Servers,
};

/// What a replica may say at its start and its end, in bytes: about ten lines.
const LOG_A_START: usize = 1_500;
/// What may be said in all, in bytes a message: a line for every third. Nothing is logged for a message that is simply answered.
const LOG_A_MESSAGE: usize = 50;

/// How often a bot may be polled by two at once (409) for each replica that was frozen or cut off: by the one that wakes, and by the
/// one whose poll that ended.
const CONFLICTS: u64 = 2;

/// How updates arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Polling,
    Webhook,
}

/// Whether the whole is wanted instead of what fits into an ordinary test run.
pub fn full() -> bool {
    std::env::var_os("BOTDECK_CHAOS_FULL").is_some_and(|value| !value.is_empty())
}

/// One of two sizes.
pub fn sized<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

pub struct Replica {
    settings: Vec<(&'static str, String)>,
    pub process: Process,
    starts: usize,
    /// What its processes that have ended had said.
    said: String,
}

pub struct World {
    name: &'static str,
    mode: Mode,
    seed: u64,
    pub random: StdRng,
    pub app: TestApp,
    pub replicas: Vec<Replica>,
    pub balancer: Balancer,
    pub redis: Proxy,
    pub servers: Servers,
    /// When each message of the bot got the text it has, by chat and id.
    heard: Arc<Mutex<HashMap<(i64, i64), Instant>>>,
    script: Script,
    writing: Option<JoinHandle<Asked>>,
    /// What was broken, for the table.
    pub broken: usize,
    /// Whether a job may be run again: false where everything ends in good order.
    pub may_repeat: bool,
    /// Whether what a model was asked may never be settled: false where no worker goes away in the middle of it.
    pub may_forget: bool,
    /// The bound of what is said.
    pub log_a_message: usize,
    /// What some replica has to say: else what was broken was not felt.
    pub must_say: &'static [&'static str],
    /// Whether some job has to be run again: else what was broken met nobody at work.
    pub must_repeat: bool,
}

impl World {
    /// Both replicas ready, and one of them listening. `settings` are those of single replicas, by number.
    pub async fn start(name: &'static str, mode: Mode, settings: &[(usize, &'static str, &str)]) -> Self {
        let seed = std::env::var("BOTDECK_CRASH_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(rand::random);
        println!("{name}, {mode:?}: BOTDECK_CRASH_SEED={seed}");
        let servers = Servers::start();
        let redis = Proxy::start(&servers.redis).await;
        let addrs = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let balancer = Balancer::start(addrs.to_vec()).await;
        let builder = TestApp::builder(env!("CARGO_BIN_EXE_botdeck"))
            .on_servers(&servers.postgres, &redis.url)
            // As operators have it: its volume is measured.
            .with("BOTDECK_LOG", "info");
        let builder = match mode {
            Mode::Polling => builder.polling(),
            Mode::Webhook => builder.webhook().with("BOTDECK_PUBLIC_URL", &balancer.url),
        };
        let app = builder.prepare().await;
        // Telegram numbers the messages of all private chats in one row, some servers those of each chat: both are to be lived with.
        if mode == Mode::Polling {
            app.telegram.number_in_one_row(TOKEN);
        } else {
            // As in a new deployment; with the other mode answers grow as messages that are edited.
            app.telegram.drafts_are(Drafts::Taken);
        }
        // What was committed must outlive a crash of the server, though not one of the machine.
        app.sql_execute("ALTER ROLE CURRENT_USER SET synchronous_commit = on")
            .await;
        let heard: Arc<Mutex<HashMap<(i64, i64), Instant>>> = Arc::default();
        app.telegram.on_bot_message({
            let heard = heard.clone();
            move |message| {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.insert((message.chat, message.id), Instant::now());
            }
        });
        let mut replicas = Vec::new();
        for (number, addr) in addrs.into_iter().enumerate() {
            let own = settings.iter().filter(|(of, ..)| *of == number);
            let mut settings: Vec<(&str, String)> = own.map(|(_, name, value)| (*name, (*value).to_owned())).collect();
            settings.push(("BOTDECK_ADDR", addr));
            replicas.push(Replica {
                process: spawn(&app, &settings),
                settings,
                starts: 1,
                said: String::new(),
            });
            // One after the other, so that there is one schema and one bot to agree on.
            replicas[number].ready().await;
        }
        // A limit that nobody reaches, so that Redis is asked for every message.
        app.sql_execute("DELETE FROM limits").await;
        app.sql_execute(
            "INSERT INTO limits (plan_id, measure, period, amount) SELECT id, 'messages', 'minute', 1000000 FROM plans",
        )
        .await;
        let listening = app.telegram.wait_for(PATIENCE, |telegram| match mode {
            Mode::Polling => (telegram.polls_open(TOKEN) > 0).then_some(()),
            Mode::Webhook => telegram.webhook_url(TOKEN).map(|_| ()),
        });
        listening.await.or_fail("nobody listens for the bot");
        Self {
            name,
            mode,
            seed,
            random: StdRng::seed_from_u64(seed),
            app,
            replicas,
            balancer,
            redis,
            servers,
            heard,
            script: Script::default(),
            writing: None,
            broken: 0,
            may_repeat: true,
            may_forget: true,
            log_a_message: LOG_A_MESSAGE,
            must_say: &[],
            must_repeat: false,
        }
    }

    /// People begin to write; goes on while the caller breaks things.
    pub fn write(&mut self, load: Load, manner: Manner) {
        // Seldom nobody says `/stop` or changes anything, and then there is nothing to be seen of it.
        self.script = loop {
            let script = load.draw(&mut self.random, manner);
            let stops = script.acts.iter().any(|(_, act)| matches!(act, Act::Stop(_)));
            if stops && script.questions.iter().any(|question| question.edits > 0) {
                break script;
            }
        };
        self.writing = Some(load::write(&self.app.telegram, self.script.clone()));
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether people are still writing.
    pub fn busy(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.is_finished())
    }

    /// Kill -9 and a new start at once, which is not waited for.
    pub async fn kill(&mut self, number: usize) {
        self.broken += 1;
        let replica = &mut self.replicas[number];
        replica.process.kill().await;
        replica.start_again(&self.app);
    }

    /// SIGTERM, the end, and a new start up to readiness.
    pub async fn roll(&mut self, number: usize) {
        self.broken += 1;
        let replica = &mut self.replicas[number];
        replica.process.terminate();
        let status = replica.process.ended(Duration::from_secs(25)).await;
        assert!(status.success(), "a replica ended with {status} at SIGTERM");
        replica.start_again(&self.app);
        replica.ready().await;
    }

    /// One number from the database, or nothing while that is away.
    pub async fn number(&self, query: &str) -> Option<i64> {
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        let asked = tokio::time::timeout(Duration::from_secs(3), query.fetch_one(&self.app.db.pool));
        asked.await.ok()?.ok()
    }

    /// Jobs that this replica has in hand.
    async fn in_hand(&self, number: usize) -> i64 {
        let pid = self.replicas[number].process.pid().unwrap_or(0);
        let query = format!("SELECT count(*) FROM jobs WHERE state = 'running' AND worker LIKE '%-{pid}-%'");
        self.number(&query).await.unwrap_or(0)
    }

    /// Stops a replica in the middle of at least so many jobs, and says which: they can be counted only before it is stopped,
    /// and may be done by then, so they are counted again.
    pub async fn freeze(&self, least: i64) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for number in 0..self.replicas.len() {
                if self.in_hand(number).await < least {
                    continue;
                }
                self.replicas[number].process.signal("STOP");
                if self.in_hand(number).await >= least {
                    return number;
                }
                self.replicas[number].process.signal("CONT");
            }
            assert!(Instant::now() < deadline, "no replica has {least} jobs in hand");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all is answered and says how it was; `bound`: what no answer may take longer than.
    pub async fn end(mut self, bound: Duration) {
        let asked = self
            .writing
            .take()
            .or_fail("nobody has written")
            .await
            .or_fail("writing failed");
        let mut verdict = Verdict::default();
        // Much longer than the bound: what is late is not lost, and is told apart.
        let patience = bound + Duration::from_secs(120);
        if let Err(open) = self.idle(patience).await {
            let late = format!("not all was worked off {patience:?} after the last message: {open}");
            verdict.faults.push(late);
        }
        let requests = self.app.provider.requests();
        verdict.books(&self.app.db, &self.script, &requests).await;
        verdict.pasts(&self.script, &requests);
        let latencies = self.chats(&mut verdict, &asked);
        let longest = latencies.last().copied().unwrap_or_default();
        if longest > bound {
            verdict
                .faults
                .push(format!("an answer took {longest:?}, the bound is {bound:?}"));
        }
        // Each attempt asks a model once at most, and only the last one settles.
        let may_be = if self.may_repeat && self.may_forget {
            verdict.attempts_before
        } else {
            0
        };
        let (requests, tokens) = verdict.unsettled;
        if signed(requests) > may_be || (may_be == 0 && tokens != 0) {
            verdict.faults.push(format!(
                "{requests} requests and {tokens} tokens that the provider told are in no ledger; {may_be} requests may be"
            ));
        }
        if verdict.stopped.is_empty() || verdict.edited == 0 {
            verdict
                .faults
                .push("nobody was stopped, or nothing answered anew".to_owned());
        }
        if self.must_repeat && verdict.again == 0 {
            verdict.faults.push("nobody was met at work".to_owned());
        }
        if !self.may_repeat && verdict.again > 0 {
            verdict
                .faults
                .push(format!("{} jobs were run again without need", verdict.again));
        }
        let violations = self.app.telegram.flood_violations();
        if violations > 0 {
            verdict
                .faults
                .push(format!("{violations} calls came before retry_after had passed"));
        }
        let conflicts = self.app.telegram.counters().refused.get(&409).copied().unwrap_or(0);
        if conflicts > signed(self.broken).unsigned_abs() * CONFLICTS {
            verdict
                .faults
                .push(format!("{conflicts} times two replicas polled at once"));
        }
        for replica in &mut self.replicas {
            replica.process.kill().await;
            replica.keep_said();
        }
        let logs: usize = self.replicas.iter().map(|replica| replica.said.len()).sum();
        let starts: usize = self.replicas.iter().map(|replica| replica.starts).sum();
        let per_message = logs.saturating_sub(starts * LOG_A_START) / self.script.acts.len();
        if per_message > self.log_a_message {
            verdict.faults.push(format!(
                "{per_message} bytes of log a message, the bound is {}",
                self.log_a_message
            ));
        }
        for words in self.must_say {
            if !self.replicas.iter().any(|replica| replica.said.contains(words)) {
                verdict.faults.push(format!("nobody said: {words}"));
            }
        }
        for replica in &self.replicas {
            if replica.said.contains("panicked at") {
                verdict.faults.push("something panicked".to_owned());
            }
        }
        self.report(&verdict, &latencies, bound, logs / self.script.acts.len());
        if !verdict.faults.is_empty() {
            let path = std::env::temp_dir().join(format!(
                "botdeck-chaos-{}-{}.log",
                self.name.replace(' ', "-"),
                self.seed
            ));
            let said: Vec<&str> = self.replicas.iter().map(|replica| replica.said.as_str()).collect();
            let logs = said.join("\n=== the other replica\n");
            let _ = std::fs::write(&path, format!("{logs}\n{}", self.evidence().await));
            println!(
                "what the replicas said is in {}; most often:\n{}",
                path.display(),
                frequent(&said)
            );
            for fault in verdict.faults.iter().take(40) {
                println!("FAULT {fault}");
            }
            panic!(
                "seed {}: {} faults, the first: {}",
                self.seed,
                verdict.faults.len(),
                verdict.faults[0]
            );
        }
        self.app.finish().await;
    }

    /// What Telegram was told and when, and which messages were noted: enough to see how a second copy came about.
    async fn evidence(&self) -> String {
        let mut lines = vec!["=== calls: time, method, chat, message id, status, text".to_owned()];
        for call in self.app.telegram.calls() {
            let at = chrono::DateTime::<chrono::Utc>::from(call.at).format("%T%.3f");
            let (chat, id) = (&call.params["chat_id"], &call.params["message_id"]);
            let text: String = call.params["text"]
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(24)
                .collect();
            lines.push(format!("{at} {} {chat} {id} {:?} {text:?}", call.method, call.status));
        }
        lines.push("=== messages: id, chat, whose, text".to_owned());
        let chats: BTreeSet<i64> = self.script.questions.iter().map(Question::chat).collect();
        let messages = chats.iter().flat_map(|chat| self.app.telegram.messages(TOKEN, *chat));
        let mut messages: Vec<_> = messages.map(|message| (message.id, message)).collect();
        messages.sort_by_key(|(id, _)| *id);
        for (id, message) in messages {
            let whose = if message.from_bot { "bot" } else { "person" };
            let text: String = message.text.chars().take(24).collect();
            lines.push(format!("{id} {} {whose} {text:?}", message.chat));
        }
        let noted =
            "SELECT concat_ws(' ', d.job_id, d.part, d.chat, d.message_id, j.attempts, j.finished_at, u.message_id)
            FROM deliveries d JOIN jobs j ON j.id = d.job_id LEFT JOIN updates u ON u.id = j.id ORDER BY d.message_id";
        lines.push("=== noted: job, part, chat, id, attempts, finished, id of the question".to_owned());
        let noted: Result<Vec<String>, _> = sqlx::query_scalar(noted).fetch_all(&self.app.db.pool).await;
        lines.extend(noted.unwrap_or_else(|error| vec![error.to_string()]));
        lines.join("\n")
    }

    async fn idle(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let pending = self.app.telegram.pending_updates(TOKEN).len();
            let open = self
                .number("SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'dead')")
                .await;
            if pending == 0 && open == Some(0) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let jobs = "SELECT string_agg(concat_ws(' ', state, attempts, run_at - now(), last_error), '; ') FROM
                    (SELECT * FROM jobs WHERE state NOT IN ('done', 'dead') ORDER BY seq LIMIT 5) AS first";
                let first: Result<Option<String>, _> = sqlx::query_scalar(jobs).fetch_one(&self.app.db.pool).await;
                return Err(format!(
                    "{pending} updates at Telegram, {open:?} open jobs, the first: {first:?}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Looks at every chat; how long each answer took, sorted.
    fn chats(&self, verdict: &mut Verdict, asked: &Asked) -> Vec<Duration> {
        let mut people = BTreeMap::<i64, Vec<&Question>>::new();
        for question in &self.script.questions {
            people.entry(question.person).or_default().push(question);
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latencies = Vec::new();
        for (person, questions) in people {
            let chat = questions.first().map_or(person, |question| question.chat());
            let messages = self.app.telegram.messages(TOKEN, chat).into_iter();
            let said = messages.filter(|message| message.from_bot && !message.deleted);
            // What is said to /stop comes at any moment, also between the parts of an answer.
            let (replies, said): (Vec<_>, Vec<_>) = said
                .map(|message| (message.id, message.text))
                .partition(|(_, text)| replies_to_stop(text));
            let stops = asked.stops.get(&person).map(Vec::as_slice).unwrap_or_default();
            verdict.stop_replies(person, stops.len(), replies.len());
            for (asked, (id, _)) in stops.iter().zip(&replies) {
                latencies.extend(heard.get(&(chat, *id)).map(|heard| heard.duration_since(*asked)));
            }
            let said = joined(said);
            let texts: Vec<String> = said.iter().map(|(_, text)| text.clone()).collect();
            verdict.chat(&questions, &texts);
            for (question, (id, _)) in questions.iter().zip(&said) {
                let (asked, heard) = (asked.questions.get(&question.identity()), heard.get(&(chat, *id)));
                latencies.extend(asked.zip(heard).map(|(asked, heard)| heard.duration_since(*asked)));
            }
        }
        latencies.sort_unstable();
        latencies
    }

    fn report(&self, verdict: &Verdict, latencies: &[Duration], bound: Duration, log: usize) {
        let Verdict {
            lost,
            twice,
            disorder,
            billed_twice,
            reserved,
            ledger_tokens,
            estimated,
            unsettled,
            stopped,
            edited,
            again,
            faults,
            attempts_before: _,
        } = verdict;
        let percentile = |percent: usize| {
            let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies.get(at).map_or(0.0, Duration::as_secs_f64)
        };
        let mode = match self.mode {
            Mode::Polling => "polling",
            Mode::Webhook => "webhook",
        };
        let mut line = String::new();
        let _ = write!(
            line,
            "{:<26} {mode:<7} {:>5} {edited:>5} {:>4} {:>4} {lost:>4} {twice:>5} {disorder:>5} {billed_twice:>6} {reserved:>4} {ledger_tokens:>8} \
             {estimated:>4} {:>9} {again:>5} {:>6.2} {:>6.2} {:>6.2} {:>5} {log:>5}  {}",
            self.name,
            self.script.questions.len(),
            stopped.len(),
            self.broken,
            format!("{}/{}", unsettled.0, unsettled.1),
            percentile(50),
            percentile(99),
            percentile(100),
            bound.as_secs(),
            if faults.is_empty() { "ok" } else { "FAILED" },
        );
        println!("{HEAD}");
        tell(&line);
    }
}

/// A line of the table.
pub fn tell(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("BOTDECK_CHAOS_TABLE") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // In one piece, since scenarios may end in the same moment.
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

/// Above the lines; `bin/test` prints it once.
const HEAD: &str = "scenario                   mode     msgs edits stop hits lost twice order billed left   ledger est. unsettled again  p50 s  p99 s  max s bound log B";

impl Replica {
    pub async fn ready(&self) {
        let ready = self.process.wait_line("Botdeck is ready: ", PATIENCE).await;
        ready.or_fail("a replica did not start");
    }

    fn start_again(&mut self, app: &TestApp) {
        self.keep_said();
        self.starts += 1;
        self.process = spawn(app, &self.settings);
    }

    fn keep_said(&mut self) {
        self.said.push_str(&self.process.logs());
    }
}

fn spawn(app: &TestApp, settings: &[(&'static str, String)]) -> Process {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    app.spawn_beside(&settings, &[])
}

/// The lines that were said most often, numbers and colours left out.
fn frequent(said: &[&str]) -> String {
    let mut counts = HashMap::<String, usize>::new();
    for line in said.iter().flat_map(|said| said.lines()) {
        // Behind the time, which stands first.
        let words: String = line
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .skip(20)
            .take(160)
            .collect();
        *counts.entry(words).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lines = counts
        .iter()
        .take(12)
        .map(|(words, count)| format!("{count:6} {words}"));
    lines.collect::<Vec<_>>().join("\n")
}
