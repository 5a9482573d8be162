//! A Postgres and a Redis that one scenario may break.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use rand::Rng;
use test_support::app::OrFail;

/// Started by the same script as everywhere, in a directory that is swept when this process is killed.
pub struct Servers {
    dir: PathBuf,
    pub postgres: String,
    /// Path of its socket.
    pub redis: String,
}

impl Servers {
    pub fn start() -> Self {
        let name = format!("botdeck-test-chaos-{:012x}", rand::rng().random_range(0..1_u64 << 48));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).or_fail("no temporary directory");
        let mut servers = Self {
            dir,
            postgres: String::new(),
            redis: String::new(),
        };
        let said = servers.script(&["start", "--throwaway"], &[]);
        for line in said.lines() {
            match line.split_once('=') {
                Some(("DATABASE_URL", url)) => url.clone_into(&mut servers.postgres),
                Some(("REDIS_URL", url)) => servers.redis = url.replace("redis+unix://", ""),
                _ => {}
            }
        }
        servers
    }

    /// Starts again what does not run.
    pub fn start_again(&self) {
        self.script(&["start", "--throwaway"], &[]);
    }

    /// `INT`: the stop in good order, which ends all connections. `QUIT`: the immediate stop, which is to Postgres what a crash is.
    pub fn postgres_signal(&self, signal: &str) {
        self.script(&["signal"], &["postgres", signal]);
    }

    /// Waits until no Postgres runs.
    pub async fn postgres_is_down(&self) {
        while self
            .run(&["signal"], &["postgres", "0"])
            .is_ok_and(|said| said.status.success())
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub fn redis_signal(&self, signal: &str) {
        self.script(&["signal"], &["redis", signal]);
    }

    fn script(&self, before: &[&str], after: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(before, after).or_fail("services.sh");
        let (said, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "services.sh {before:?} {after:?}: {error}");
        said.into_owned()
    }

    fn run(&self, before: &[&str], after: &[&str]) -> std::io::Result<Output> {
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../bin/lib/services.sh"))
            .args(before)
            .arg(&self.dir)
            .args(after)
            .env("BOTDECK_OWNER", std::process::id().to_string())
            .output()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // A frozen Redis would not hear that it is to stop.
        let _ = self.run(&["signal"], &["redis", "CONT"]);
        let _ = self.run(&["stop"], &[]);
    }
}
