//! `--embedded`: a private Postgres and Redis under `.local/`, started and stopped with the program by the same script that
//! `bin/run` uses.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use services::KeyRing;

const DIR: &str = ".local";

/// What was started; stopped when dropped.
pub struct Embedded {
    script: PathBuf,
    pub settings: Vec<(String, String)>,
}

impl Embedded {
    /// Starts both servers and makes a secret key when there is none. The settings are those that point to them.
    pub fn start() -> anyhow::Result<Self> {
        let script = find_script().context(
            "--embedded needs bin/lib/services.sh of a checkout; set DATABASE_URL and REDIS_URL to use servers of your own",
        )?;
        let output = Command::new(&script)
            .args(["start", DIR])
            .output()
            .context("services.sh could not be run")?;
        if !output.status.success() {
            bail!(
                "the private servers did not start: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut settings: Vec<(String, String)> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let key = Path::new(DIR).join("secret.key");
        if !key.exists() {
            write_key(&key)?;
        }
        settings.push(("BOTDECK_SECRET_KEY_FILE".to_owned(), key.display().to_string()));
        Ok(Self { script, settings })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).args(["stop", DIR]).status();
    }
}

/// Named by `bin/botdeck`, in the working directory, or above the program.
fn find_script() -> Option<PathBuf> {
    if let Some(script) = std::env::var_os("BOTDECK_SERVICES") {
        return Some(script.into());
    }
    let relative = Path::new("bin/lib/services.sh");
    let exe = std::env::current_exe().ok()?;
    let mut places = vec![PathBuf::from(".")];
    places.extend(exe.ancestors().map(Path::to_path_buf));
    places
        .into_iter()
        .map(|place| place.join(relative))
        .find(|path| path.exists())
}

fn write_key(path: &Path) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{}", KeyRing::generate().expose_secret())?;
    Ok(())
}
