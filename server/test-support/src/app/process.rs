//! The built program as a child process, with everything it says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::OrFail;
use crate::net::lock;
use crate::wait::{NotSeen, until};

/// What a process has written, both streams together.
#[derive(Default)]
struct Said {
    text: Mutex<String>,
    changed: watch::Sender<()>,
}

/// A running `botdeck`; killed when dropped.
pub struct Process {
    child: Child,
    said: Arc<Said>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// # Panics
    /// When the command failed.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "the command failed: {self:?}");
        self
    }
}

fn command(binary: &str, dir: &Path, env: &BTreeMap<String, String>, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    // Nothing of the tester's own settings, and no botdeck.toml that happens to lie about.
    command.env_clear().envs(env).args(args).current_dir(dir);
    for name in ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub(super) async fn run(binary: &str, dir: &Path, env: &BTreeMap<String, String>, args: &[&str], stdin: &str) -> Ended {
    let mut command = command(binary, dir, env, args);
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .or_fail("botdeck could not be run");
    if let Some(mut pipe) = child.stdin.take() {
        // A command that reads nothing may be gone already.
        let _ = pipe.write_all(stdin.as_bytes()).await;
    }
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = output
        .or_fail("a command did not end within 60 s")
        .or_fail("a command could not be waited for");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Process {
    pub(super) fn spawn(binary: &str, dir: &Path, env: &BTreeMap<String, String>, args: &[&str]) -> Self {
        let mut command = command(binary, dir, env, args);
        let mut child = command.stdin(Stdio::null()).spawn().or_fail("botdeck could not be run");
        let said = Arc::new(Said::default());
        if let Some(pipe) = child.stdout.take() {
            listen(pipe, said.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            listen(pipe, said.clone());
        }
        Self { child, said }
    }

    /// Everything it has written so far.
    pub fn logs(&self) -> String {
        lock(&self.said.text).clone()
    }

    /// Waits for a line and returns what stands behind `words` in it.
    pub async fn wait_line(&self, words: &str, timeout: Duration) -> Result<String, NotSeen> {
        let find = || {
            let text = lock(&self.said.text);
            let line = text.lines().find(|line| line.contains(words))?;
            Some(line.split_once(words)?.1.trim().to_owned())
        };
        until(&self.said.changed, timeout, find, || self.logs()).await
    }

    /// Kill -9: no goodbye.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// SIGTERM, as a service manager sends it.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Any signal by its name, such as `STOP` and `CONT`; nothing happens when it has ended already.
    pub fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            // The shell's own `kill`: there is one everywhere.
            let done = std::process::Command::new("sh")
                .args(["-c", &format!("kill -{name} {pid}")])
                .status();
            done.or_fail("no shell to send a signal with");
        }
    }

    /// `None` when it has ended and that was seen.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end.
    pub async fn ended(&mut self, timeout: Duration) -> ExitStatus {
        match tokio::time::timeout(timeout, self.child.wait()).await {
            Ok(status) => status.or_fail("botdeck could not be waited for"),
            Err(_) => panic!("botdeck was still running after {timeout:?}; it said:\n{}", self.logs()),
        }
    }
}

fn listen(pipe: impl AsyncRead + Unpin + Send + 'static, said: Arc<Said>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut text = lock(&said.text);
            text.push_str(&line);
            text.push('\n');
            drop(text);
            said.changed.send_replace(());
        }
    });
}
