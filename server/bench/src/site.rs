//! What a browser loads at its first visit.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

#[derive(Serialize)]
pub struct File {
    pub name: String,
    pub bytes: u64,
    /// What is sent to a browser that takes brotli: the file beside it, compressed at the build. `None` when there is none, and the
    /// server would compress it for each request anew.
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
                brotli_bytes: ahead(&path),
            });
        }
    }
    if !files.iter().any(|file| file.name.ends_with(".wasm")) {
        bail!("no wasm in {}: build the site first", folder.display());
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    Ok(files)
}

fn ahead(path: &Path) -> Option<u64> {
    let mut name = path.as_os_str().to_owned();
    name.push(".br");
    Some(Path::new(&name).metadata().ok()?.len())
}
