//! Started programs, and what they have cost so far (from `/proc`, so on Linux only).

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

/// A program that runs; killed when dropped.
pub struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// What it prints goes to `log`.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Waits until `ready`; an end before that is an error with the last lines of the log.
    pub async fn until(&mut self, mut ready: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
        for _ in 0..600 {
            if ready().await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}\n{}", self.name, self.tail());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("{} does not get ready\n{}", self.name, self.tail())
    }

    /// The end of what it printed, for a person who wonders.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Asks it to end, as a supervisor would, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await?;
        if tokio::time::timeout(Duration::from_secs(30), self.child.wait())
            .await
            .is_err()
        {
            bail!("{} does not stop\n{}", self.name, self.tail());
        }
        Ok(())
    }
}

/// User and system time of a process in seconds, with all its threads.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let fields = stat(pid)?;
    Some(fields.ticks(UTIME..=STIME) / ticks_per_second())
}

/// The same of a process, of its living children, and of those that have ended.
pub fn cpu_seconds_of_family(pid: u32) -> Option<f64> {
    let parent = stat(pid)?;
    let children = std::fs::read_dir("/proc").ok()?;
    let children = children.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let living: f64 = children
        .filter_map(stat)
        .filter(|stat| stat.parent() == Some(pid))
        .map(|stat| stat.ticks(UTIME..=STIME))
        .sum();
    Some((parent.ticks(UTIME..=CHILDREN_STIME) + living) / ticks_per_second())
}

/// What all processes of the machine have worked since it was started.
pub fn cpu_seconds_of_machine() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> = text
        .lines()
        .next()?
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq
    let busy = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|place| fields.get(*place))
        .sum::<f64>();
    Some(busy / ticks_per_second())
}

/// Waits until whoever started this process has ended: what serves a benchmark is not to outlive it, however that ends.
pub async fn orphaned() {
    let me = std::process::id();
    let Some(parent) = parent_of(me) else {
        return std::future::pending().await;
    };
    while parent_of(me) == Some(parent) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?.parent()
}

/// The most memory a process ever had, in bytes.
pub fn peak_memory(pid: u32) -> Option<u64> {
    memory_of(pid, "VmHWM:")
}

/// What memory a process has now, in bytes.
pub fn memory(pid: u32) -> Option<u64> {
    memory_of(pid, "VmRSS:")
}

fn memory_of(pid: u32, which: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Places in `/proc/PID/stat`, counted from the state, which is the first field after the name.
const PARENT: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;
const CHILDREN_STIME: usize = 14;

struct Stat(Vec<String>);

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses.
    let (_, fields) = text.rsplit_once(") ")?;
    Some(Stat(fields.split(' ').map(str::to_owned).collect()))
}

impl Stat {
    fn parent(&self) -> Option<u32> {
        self.0.get(PARENT)?.parse().ok()
    }

    fn ticks(&self, places: std::ops::RangeInclusive<usize>) -> f64 {
        let fields = self.0.get(places).unwrap_or_default();
        fields.iter().filter_map(|field| field.parse::<f64>().ok()).sum()
    }
}

fn ticks_per_second() -> f64 {
    static TICKS: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    *TICKS.get_or_init(|| {
        let asked = std::process::Command::new("getconf").arg("CLK_TCK").output().ok();
        let asked = asked.and_then(|output| String::from_utf8(output.stdout).ok());
        asked.and_then(|text| text.trim().parse().ok()).unwrap_or(100.0)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let me = std::process::id();
        let before = cpu_seconds(me).unwrap();
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(200) {
            std::hint::black_box(before);
        }
        // Read from the smallest to the largest: the work goes on between two readings.
        let mine = cpu_seconds(me).unwrap();
        let family = cpu_seconds_of_family(me).unwrap();
        assert!(mine > before);
        assert!(family >= mine);
        assert!(cpu_seconds_of_machine().unwrap() > 0.0);
        assert!(memory(me).unwrap() > 1024 * 1024);
        assert!(peak_memory(me) >= memory(me));
        assert!(parent_of(me).unwrap() > 0);
    }
}
