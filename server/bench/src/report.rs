//! What a person reads, and the same as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    hashing::Hashing,
    run::{Measured, Runs, number},
    site::File,
};

#[derive(Default, Serialize)]
pub struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot: Option<Runs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argon2: Option<Hashing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Vec<File>>,
}

impl Report {
    pub fn table(&self, statements: bool) -> String {
        let mut text = String::new();
        if let Some(bot) = &self.bot {
            text.push_str(&bot_table(bot, statements));
        }
        if let Some(hashing) = &self.argon2 {
            text.push_str(&hashing_line(hashing));
        }
        if let Some(files) = &self.site {
            text.push_str(&site_lines(files));
        }
        text
    }
}

/// A row of the table: what it is called, and how it is read off.
type Line = (&'static str, fn(&Measured) -> String);

const LINES: [Line; 12] = [
    ("answers a second", |run| format!("{:.0}", run.answers_per_second)),
    ("time to answer, half within", |run| {
        format!("{:.1} ms", run.latency_p50_ms)
    }),
    ("                99 % within", |run| {
        format!("{:.1} ms", run.latency_p99_ms)
    }),
    ("CPU a message", |run| {
        or_dash(run.cpu_ms.map(|ms| format!("{ms:.2} ms")))
    }),
    ("peak memory", |run| {
        or_dash(run.peak_memory_bytes.map(|bytes| format!("{:.1} MiB", mib(bytes))))
    }),
    ("Telegram calls an answer", |run| format!("{:.2}", run.telegram_calls)),
    ("polls an answer", |run| format!("{:.2}", run.polls)),
    ("Postgres: statements a message", |run| {
        or_dash(
            run.postgres
                .as_ref()
                .and_then(|work| Some(format!("{:.1}", work.statements?))),
        )
    }),
    ("          writing transactions", |run| {
        or_dash(
            run.postgres
                .as_ref()
                .map(|work| format!("{:.2}", work.write_transactions)),
        )
    }),
    ("          log written", |run| {
        or_dash(
            run.postgres
                .as_ref()
                .map(|work| format!("{:.1} KiB", work.wal_bytes / 1024.0)),
        )
    }),
    ("          CPU of all its processes", |run| {
        or_dash(
            run.postgres
                .as_ref()
                .and_then(|work| Some(format!("{:.2} ms", work.cpu_seconds? * 1000.0))),
        )
    }),
    ("other work on the machine meanwhile", |run| {
        or_dash(run.other_work_cores.map(|cores| format!("{:.2} cores", cores.max(0.0))))
    }),
];

fn bot_table(bot: &Runs, statements: bool) -> String {
    let mut text = format!(
        "Messages answered: {} by {} users who each wait for the answer, fake Telegram and provider without delay,\n\
         all of it on {} cores; Postgres {} {}; {}{}\n\n",
        bot.messages,
        bot.users,
        bot.cores,
        bot.postgres,
        if bot.postgres_durable {
            "as it is for real use (each commit waits for the disk)"
        } else {
            "NOT durable (no commit waits for the disk: faster than real use)"
        },
        bot.program,
        if bot.bench_is_debug {
            "; the bench is a DEBUG build"
        } else {
            ""
        },
    );
    let _ = write!(text, "{:36}", "");
    for run in &bot.runs {
        let _ = write!(text, "{:>20}", run.name);
    }
    for (name, value) in LINES {
        let _ = write!(text, "\n{name:36}");
        for run in &bot.runs {
            let _ = write!(text, "{:>20}", value(run));
        }
    }
    text.push_str("\n\n");
    let of = |run: &Measured| {
        let cpu = run.cpu_ms.map(|ms| format!(" ({ms:.1} ms CPU a message)"));
        format!(
            "{} {:.0}/s{}",
            run.name,
            run.answers_per_second,
            cpu.unwrap_or_default()
        )
    };
    let _ = writeln!(text, "{}", bot.runs.iter().map(of).collect::<Vec<_>>().join(", "));
    for run in bot.runs.iter().filter(|run| statements && !run.statements.is_empty()) {
        let _ = writeln!(text, "\n{}: calls and ms of Postgres, a message", run.name);
        for statement in &run.statements {
            let short: String = statement.text.chars().take(110).collect();
            let _ = writeln!(text, "{:8.2} {:8.3}  {short}", statement.calls, statement.milliseconds);
        }
    }
    text
}

fn hashing_line(hashing: &Hashing) -> String {
    format!(
        "Password hash: {:.0} ms, the median of {} ({:.0} to {:.0}), with {}: {} {:.0} to {:.0} ms\n",
        hashing.median_ms,
        hashing.hashes,
        hashing.fastest_ms,
        hashing.slowest_ms,
        hashing.work,
        if hashing.within { "within" } else { "NOT within" },
        hashing.wanted_ms.0,
        hashing.wanted_ms.1
    )
}

fn site_lines(files: &[File]) -> String {
    let kib = |bytes: u64| number(bytes) / 1024.0;
    let mut text = String::from("What a browser loads:\n");
    for file in files {
        let brotli = file
            .brotli_bytes
            .map(|bytes| format!("{:.1} KiB as sent, with brotli", kib(bytes)));
        let _ = writeln!(
            text,
            "  {:24} {:>10.1} KiB, {}",
            file.name,
            kib(file.bytes),
            brotli.unwrap_or_else(|| "not compressed at the build, so at each request".to_owned())
        );
    }
    text
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".to_owned())
}

fn mib(bytes: u64) -> f64 {
    number(bytes) / 1024.0 / 1024.0
}
