//! `--embedded`: a private Postgres and Redis under `.local/` for what is set nowhere, and a secret key. Whoever uses the servers
//! holds a shared lock on `.local/services.users`; the last one stops them.

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use services::KeyRing;

use crate::settings::Sources;

/// Where private servers, their data and the secret key lie.
pub const DIR: &str = ".local";

/// The right to use the private servers; given back when dropped, and then they stop unless others use them.
pub struct Embedded {
    script: PathBuf,
    users: Option<File>,
}

impl Embedded {
    /// Starts the servers, or finds them running, and adds their addresses where `sources` have none. None when nothing is wanted.
    pub fn start(sources: &mut Sources) -> anyhow::Result<Option<Self>> {
        let wanted: Vec<&str> = [("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")]
            .into_iter()
            .filter(|(name, _)| !sources.has(name))
            .map(|(_, server)| server)
            .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        // The lock first, so that nobody stops what is found running; and a start that fails half-way is stopped by dropping it.
        let used = Self::lock()?;
        let output = Command::new(&used.script)
            .args(["start", DIR])
            .args(wanted)
            .output()
            .context("services.sh could not be run")?;
        if !output.status.success() {
            bail!(
                "the private servers did not start: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        for (name, value) in String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_once('='))
        {
            sources.fall_back(name, value);
        }
        Ok(Some(used))
    }

    fn lock() -> anyhow::Result<Self> {
        let script = find_script().context(
            "--embedded needs bin/lib/services.sh of a checkout; set DATABASE_URL and REDIS_URL to use servers of your own",
        )?;
        std::fs::create_dir_all(DIR).with_context(|| format!("{DIR} could not be made"))?;
        let users = File::options()
            .append(true)
            .create(true)
            .open(Path::new(DIR).join("services.users"))
            .context(".local/services.users could not be opened")?;
        users
            .lock_shared()
            .context(".local/services.users could not be locked")?;
        Ok(Self {
            script,
            users: Some(users),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.users = None;
        // Exit 3 says that others use them.
        let _ = Command::new(&self.script)
            .args(["stop", DIR])
            .stderr(Stdio::null())
            .status();
    }
}

/// The key under `.local/`, unless `sources` name another; made when there is none.
pub fn use_key(sources: &mut Sources) -> anyhow::Result<()> {
    if sources.has("BOTDECK_SECRET_KEY") || sources.has("BOTDECK_SECRET_KEY_FILE") {
        return Ok(());
    }
    let path = Path::new(DIR).join("secret.key");
    if !path.exists() {
        std::fs::create_dir_all(DIR).with_context(|| format!("{DIR} could not be made"))?;
        make_key(&path).with_context(|| format!("{} could not be made", path.display()))?;
    }
    sources.fall_back("BOTDECK_SECRET_KEY_FILE", &path.display().to_string());
    Ok(())
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

/// Whole or not at all, and of two processes that make it at once both take the same: a file is written aside, then linked.
fn make_key(path: &Path) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    writeln!(file, "{}", KeyRing::generate().expose_secret())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&aside, path);
    std::fs::remove_file(&aside)?;
    match linked {
        Ok(()) => {
            eprintln!(
                "botdeck: made the key for stored secrets: {} (back it up with the database)",
                path.display()
            );
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let dir = std::env::temp_dir().join(format!("botdeck-key-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("secret.key");
        make_key(&path).unwrap();
        let key = std::fs::read_to_string(&path).unwrap();
        assert!(KeyRing::parse(&key.clone().into()).is_ok());
        make_key(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), key);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
