//! What a person reads, and the same as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    gateway,
    hashing::Hashing,
    run::{Measured, Runs, number},
    site::File,
};

#[derive(Default, Serialize)]
pub struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot: Option<Runs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<gateway::Runs>,
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
        if let Some(gateway) = &self.gateway {
            text.push_str(&gateway::table(gateway));
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

/// A column of the table: what stands above it, and how it is read off.
type Column = (&'static str, fn(&Measured) -> Option<String>);

const COLUMNS: [Column; 13] = [
    ("answers/s", |run| Some(format!("{:.0}", run.answers_per_second))),
    ("p50 ms", |run| Some(format!("{:.1}", run.latency_p50_ms))),
    ("p99 ms", |run| Some(format!("{:.1}", run.latency_p99_ms))),
    ("added p50", |run| run.added_p50_ms.map(|ms| format!("{ms:.1}"))),
    ("added p99", |run| run.added_p99_ms.map(|ms| format!("{ms:.1}"))),
    ("CPU ms", |run| run.cpu_ms.map(|ms| format!("{ms:.2}"))),
    ("MiB", |run| {
        run.peak_memory_bytes.map(|bytes| format!("{:.0}", mib(bytes)))
    }),
    ("calls", |run| Some(format!("{:.2}", run.telegram_calls))),
    ("polls", |run| Some(format!("{:.2}", run.polls))),
    ("statements", |run| {
        Some(format!("{:.1}", run.postgres.as_ref()?.statements?))
    }),
    ("writes", |run| {
        Some(format!("{:.2}", run.postgres.as_ref()?.write_transactions))
    }),
    ("DB CPU ms", |run| {
        Some(format!("{:.2}", run.postgres.as_ref()?.cpu_seconds? * 1000.0))
    }),
    ("others", |run| {
        run.other_work_cores.map(|cores| format!("{:.2}", cores.max(0.0)))
    }),
];

fn bot_table(bot: &Runs, statements: bool) -> String {
    let mut text = format!(
        "Fake Telegram and provider without delay, all of it on {} cores; Postgres {} {}; {}{}\n\
         A message: CPU of the contestant, Telegram calls and polls, statements sent to Postgres, transactions that write, CPU of\n\
         Postgres. Added: beyond the bare loop under the same load. MiB: the most it ever had. Others: cores that worked on\n\
         something else meanwhile; figures are worth most when it is 0.\n\n",
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
    let _ = write!(text, "{:36}{:18}{:>9}", "load", "contestant", "messages");
    for (name, _) in COLUMNS {
        let _ = write!(text, "{name:>11}");
    }
    for run in &bot.runs {
        let old = if run.old > 0 {
            format!(", {} old", run.old)
        } else {
            String::new()
        };
        let _ = write!(
            text,
            "\n{:36}{:18}{:>9}",
            format!("{}{old}", run.load),
            run.name,
            run.messages
        );
        for (_, value) in COLUMNS {
            let _ = write!(text, "{:>11}", or_dash(value(run)));
        }
    }
    text.push('\n');
    for run in bot.runs.iter().filter(|run| statements && !run.statements.is_empty()) {
        let _ = writeln!(
            text,
            "\n{}, {}: calls and ms of Postgres, a message",
            run.name, run.load
        );
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

pub fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".to_owned())
}

pub fn mib(bytes: u64) -> f64 {
    number(bytes) / 1024.0 / 1024.0
}
