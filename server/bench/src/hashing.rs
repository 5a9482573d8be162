//! How long one password takes, with the work factor in use.

use std::time::{Duration, Instant};

use anyhow::Context;
use domain::Password;
use serde::Serialize;

const HASHES: usize = 9;
/// Slow for a thief, not felt by a person.
const WANTED_MS: std::ops::RangeInclusive<f64> = 60.0..=160.0;

#[derive(Serialize)]
pub struct Hashing {
    pub median_ms: f64,
    pub fastest_ms: f64,
    pub slowest_ms: f64,
    pub hashes: usize,
    /// Algorithm and work factor, as they stand in a hash.
    pub work: String,
    pub wanted_ms: (f64, f64),
    pub within: bool,
}

pub fn measure() -> anyhow::Result<Hashing> {
    let password: Password = "correct horse battery".parse().ok().context("not a password")?;
    let mut times = Vec::with_capacity(HASHES);
    let mut hash = String::new();
    for _ in 0..HASHES {
        let started = Instant::now();
        hash = services::password_hash_for_bench(&password)?;
        times.push(milliseconds(started.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    let median_ms = at(HASHES / 2);
    Ok(Hashing {
        median_ms,
        fastest_ms: at(0),
        slowest_ms: at(HASHES - 1),
        hashes: HASHES,
        work: hash.split('$').skip(1).take(3).collect::<Vec<_>>().join(" "),
        wanted_ms: (*WANTED_MS.start(), *WANTED_MS.end()),
        within: WANTED_MS.contains(&median_ms),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
