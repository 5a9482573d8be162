//! The gateway's figures as a person reads them, and the lines for the README.

use std::fmt::Write;

use super::{Added, HeldStreams, Kind, Load, Measured, Runs, Way};
use crate::report::{mib, or_dash};

/// A column of the table: what stands above it, and how it is read off.
type Column = (&'static str, fn(&Measured) -> Option<String>);

const COLUMNS: [Column; 14] = [
    ("calls/s", |run| Some(format!("{:.0}", run.calls_per_second))),
    ("p50 ms", |run| Some(format!("{:.2}", run.p50_ms))),
    ("p99 ms", |run| Some(format!("{:.2}", run.p99_ms))),
    ("+p50", |run| run.to_direct.map(|added| format!("{:.2}", added.p50_ms))),
    ("+p99", |run| run.to_direct.map(|added| format!("{:.2}", added.p99_ms))),
    ("proxy +p50", |run| {
        run.to_proxy.map(|added| format!("{:.2}", added.p50_ms))
    }),
    ("proxy +p99", |run| {
        run.to_proxy.map(|added| format!("{:.2}", added.p99_ms))
    }),
    ("first p50", |run| streamed(run, run.first_p50_ms)),
    ("first +p50", |run| streamed(run, run.to_direct?.first_p50_ms)),
    ("CPU ms", |run| run.cpu_ms.map(|ms| format!("{ms:.3}"))),
    ("MiB", |run| run.memory_bytes.map(|bytes| format!("{:.0}", mib(bytes)))),
    ("statements", |run| {
        Some(format!("{:.2}", run.postgres.as_ref()?.statements?))
    }),
    ("DB CPU ms", |run| {
        Some(format!("{:.3}", run.postgres.as_ref()?.cpu_seconds? * 1000.0))
    }),
    ("others", |run| {
        run.other_work_cores.map(|cores| format!("{:.2}", cores.max(0.0)))
    }),
];

fn streamed(run: &Measured, ms: f64) -> Option<String> {
    (run.kind != Kind::Plain).then(|| format!("{ms:.2}"))
}

pub fn table(runs: &Runs) -> String {
    let mut text = format!(
        "The gateway: fake provider without delay, all of it on {} cores; Postgres {} {}; {}{}\n\
         +: beyond a call straight to the provider under the same load; proxy +: beyond one through the bare proxy. First: until the first\n\
         byte. A call: CPU of the process in the middle (what it writes afterwards included), statements sent to Postgres, CPU of Postgres.\n\
         Others: cores that worked on something else meanwhile; figures are worth most when it is 0.\n\n",
        runs.cores,
        runs.postgres,
        if runs.postgres_durable {
            "as it is for real use (each commit waits for the disk)"
        } else {
            "NOT durable (no commit waits for the disk: faster than real use)"
        },
        runs.program,
        if runs.bench_is_debug {
            "; the bench is a DEBUG build"
        } else {
            ""
        },
    );
    let _ = write!(text, "{:14}{:18}{:18}{:>8}", "kind", "load", "way", "calls");
    for (name, _) in COLUMNS {
        let _ = write!(text, "{name:>11}");
    }
    for run in &runs.runs {
        let (kind, load, way) = (run.kind.name(), run.load.name(), run.way.name());
        let _ = write!(text, "\n{kind:14}{load:18}{way:18}{:>8}", run.calls);
        for (_, value) in COLUMNS {
            let _ = write!(text, "{:>11}", or_dash(value(run)));
        }
    }
    text.push_str("\n\n");
    for held in &runs.held {
        let _ = writeln!(
            text,
            "{} streams held open, {}: {} a stream",
            held.streams,
            held.way.name(),
            kilobytes(held)
        );
    }
    text.push('\n');
    text.push_str(&readme(runs));
    text
}

fn kilobytes(held: &HeldStreams) -> String {
    or_dash(held.bytes_a_stream.map(|bytes| format!("{:.0} kB", bytes / 1000.0)))
}

/// A line of the README: what, the aim, and how it is read off for a way.
type Line = (&'static str, &'static str, fn(&Runs, Way) -> Option<String>);

const LINES: [Line; 8] = [
    ("added to a call by itself, p50 / p99", "1 ms / –", |runs, way| {
        added(find(runs, way, Kind::Plain, Load::Closed(1))?.to_direct)
    }),
    ("the same at 500 a second", "", |runs, way| {
        added(find(runs, way, Kind::Plain, Load::Open(500))?.to_direct)
    }),
    (
        "calls a second: 1 / 8 / 32 / 128 connections",
        "– / – / 2,000 / –",
        |runs, way| Some(rates(runs, way, Kind::Plain)),
    ),
    ("the same, streamed in 20 chunks", "", |runs, way| {
        Some(rates(runs, way, Kind::Burst))
    }),
    (
        "our CPU a call, 32 connections: plain / streamed",
        "0.3 ms",
        |runs, way| {
            let cpu = |kind| Some(format!("{:.2}", find(runs, way, kind, Load::Closed(32))?.cpu_ms?));
            Some(format!(
                "{} / {} ms",
                or_dash(cpu(Kind::Plain)),
                or_dash(cpu(Kind::Burst))
            ))
        },
    ),
    (
        "first byte of a paced stream, added: 1 / 32 connections",
        "1 ms",
        |runs, way| {
            let first = |many| {
                let run = find(runs, way, Kind::Paced, Load::Closed(many))?;
                Some(format!("{:.2}", run.to_direct?.first_p50_ms))
            };
            Some(format!("{} / {} ms", or_dash(first(1)), or_dash(first(32))))
        },
    ),
    ("memory of a stream in flight", "64 kB", |runs, way| {
        Some(kilobytes(runs.held.iter().find(|held| held.way == way)?))
    }),
    ("most memory", "", |runs, way| {
        let memory = runs
            .runs
            .iter()
            .filter(|run| run.way == way)
            .filter_map(|run| run.memory_bytes);
        Some(format!("{:.0} MiB", mib(memory.max()?)))
    }),
];

fn readme(runs: &Runs) -> String {
    const WAYS: [Way; 3] = [Way::LimitedDeck, Way::Deck, Way::Proxy];
    let mut text = String::from("| | aim | with limits | without | bare proxy |\n|---|---|---|---|---|\n");
    for (what, aim, read) in LINES {
        let cells = WAYS.map(|way| or_dash(read(runs, way))).join(" | ");
        let _ = writeln!(text, "| {what} | {aim} | {cells} |");
    }
    text
}

fn find(runs: &Runs, way: Way, kind: Kind, load: Load) -> Option<&Measured> {
    let same = |run: &&Measured| (run.way, run.kind, run.load) == (way, kind, load);
    runs.runs.iter().find(same)
}

fn added(added: Option<Added>) -> Option<String> {
    let Added { p50_ms, p99_ms, .. } = added?;
    Some(format!("{p50_ms:.2} / {p99_ms:.2} ms"))
}

fn rates(runs: &Runs, way: Way, kind: Kind) -> String {
    let rate = |many| {
        Some(format!(
            "{:.0}",
            find(runs, way, kind, Load::Closed(many))?.calls_per_second
        ))
    };
    [1, 8, 32, 128].map(|many| or_dash(rate(many))).join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(way: Way, kind: Kind, load: Load, p50_ms: f64) -> Measured {
        Measured {
            way,
            kind,
            load,
            calls: 10,
            calls_per_second: 1234.0,
            p50_ms,
            p99_ms: 2.0 * p50_ms,
            first_p50_ms: p50_ms / 2.0,
            first_p99_ms: p50_ms,
            to_direct: None,
            to_proxy: None,
            cpu_ms: Some(0.25),
            memory_bytes: Some(50 << 20),
            postgres: None,
            other_work_cores: Some(0.0),
        }
    }

    #[test]
    fn the_readme_says_what_was_measured_and_a_dash_where_nothing_was() {
        let direct = run(Way::Direct, Kind::Plain, Load::Closed(1), 1.0);
        let mut deck = run(Way::Deck, Kind::Plain, Load::Closed(1), 1.5);
        deck.to_direct = Some(deck.more_than(&direct));
        let busy = run(Way::Deck, Kind::Plain, Load::Closed(32), 9.0);
        let runs = Runs {
            cores: 2,
            program: "botdeck".to_owned(),
            bench_is_debug: false,
            postgres: "18".to_owned(),
            postgres_durable: true,
            runs: vec![direct, deck, busy],
            held: vec![HeldStreams {
                way: Way::Deck,
                streams: 4,
                bytes_a_stream: Some(40_400.0),
            }],
        };
        let lines: Vec<String> = readme(&runs).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 2 + LINES.len());
        for line in [
            "| added to a call by itself, p50 / p99 | 1 ms / – | – | 0.50 / 1.00 ms | – |",
            "| calls a second: 1 / 8 / 32 / 128 connections | – / – / 2,000 / – | – / – / – / – | 1234 / – / 1234 / – | – / – / – / – |",
            "| our CPU a call, 32 connections: plain / streamed | 0.3 ms | – / – ms | 0.25 / – ms | – / – ms |",
            "| memory of a stream in flight | 64 kB | – | 40 kB | – |",
            "| most memory |  | – | 50 MiB | – |",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}\n{lines:#?}");
        }
        assert!(table(&runs).contains("plain         32 connections    Botdeck"));
    }
}
