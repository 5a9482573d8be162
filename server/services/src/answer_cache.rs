//! Answers that replicas share, in the Redis that rates are counted in. It is speed, not truth: whatever goes wrong is a miss.

use std::time::Duration;

use async_trait::async_trait;
use gateway::{CacheKey, SharedCache};

use crate::{RateLimiter, rate::Shared};

/// Entries end by Redis' own clock, so those of replicas need not agree.
pub(crate) struct AnswerCache(Shared);

impl AnswerCache {
    /// `None` where there is no Redis.
    pub(crate) fn beside(rate: &RateLimiter) -> Option<Self> {
        rate.shared().map(Self)
    }
}

fn name(key: &CacheKey) -> String {
    format!("botdeck:answer:{}", blake3::Hash::from_bytes(*key).to_hex())
}

#[async_trait]
impl SharedCache for AnswerCache {
    async fn get(&self, key: &CacheKey) -> Option<(Vec<u8>, Duration)> {
        let name = name(key);
        let mut ask = redis::pipe();
        ask.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (value, left): (Option<Vec<u8>>, i64) = self.0.ask(&ask).await?;
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        Some((value?, Duration::from_millis(left)))
    }

    async fn put(&self, key: &CacheKey, value: Vec<u8>, lifetime: Duration) {
        let mut tell = redis::pipe();
        tell.cmd("SET").arg(name(key)).arg(value).arg("PX");
        tell.arg(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
            .ignore();
        let _ = self.0.ask::<()>(&tell).await;
    }
}
