//! What a browser loads at its first visit.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use serde::Serialize;

#[derive(Serialize)]
pub struct File {
    pub name: String,
    pub bytes: u64,
    /// With `brotli -q 11`, as a server that compresses ahead sends it; `None` when there is no `brotli`.
    pub brotli_bytes: Option<u64>,
}

/// All scripts, styles and wasm of the built site, largest first.
pub fn measure() -> anyhow::Result<Vec<File>> {
    let root = std::env::var_os("LEPTOS_SITE_ROOT").context("LEPTOS_SITE_ROOT is not set")?;
    let folder = PathBuf::from(root).join("pkg");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("{} is not there", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if ["wasm", "js", "css"].contains(&kind) {
            files.push(File {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                bytes: path.metadata()?.len(),
                brotli_bytes: brotli(&path),
            });
        }
    }
    if !files.iter().any(|file| file.name.ends_with(".wasm")) {
        bail!("no wasm in {}: build the site first", folder.display());
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    Ok(files)
}

fn brotli(path: &Path) -> Option<u64> {
    let output = Command::new("brotli")
        .args(["-c", "-q", "11"])
        .arg(path)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    (output.status.success()).then(|| u64::try_from(output.stdout.len()).ok())?
}
