//! Waiting for something to be seen, woken by changes and never by sleeping.

use std::time::Duration;

use tokio::sync::watch;

/// What was waited for did not come in time.
#[derive(thiserror::Error)]
#[error("not seen within {waited:?}; what was seen:\n{seen}")]
pub struct NotSeen {
    pub waited: Duration,
    /// What was seen instead, one thing a line.
    pub seen: String,
}

/// The same as `Display`: a failing `unwrap` prints this, and it is to be read by a person.
impl std::fmt::Debug for NotSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Asks `look` now and after every change, until it finds something or time is up.
pub(crate) async fn until<T>(
    changes: &watch::Sender<()>,
    timeout: Duration,
    mut look: impl FnMut() -> Option<T>,
    seen: impl FnOnce() -> String,
) -> Result<T, NotSeen> {
    let mut changed = changes.subscribe();
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        changed.borrow_and_update();
        if let Some(found) = look() {
            return Ok(found);
        }
        if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            return Err(NotSeen {
                waited: timeout,
                seen: seen(),
            });
        }
    }
}
