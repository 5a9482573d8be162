//! How many requests each replica may send to a provider at once, so that all of them together keep to its number.
//!
//! Redis holds what each replica has on loan, for a few seconds at a time: what a replica that died had taken is free again soon. While
//! Redis is away each replica takes its share by how many live, one at least. A thousand calls cost Redis no more than one: a loan
//! is told of a few times a second, and not by each call.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use gateway::{Loan, SharedPlaces};
use redis::Script;

use crate::{RateLimiter, rate::Shared};

/// A loan that was not told of for so long is over.
const LIFE_MS: u32 = 10_000;

/// KEYS: the loans of a provider, one field for each holder: places held, places wanted, since when it has had too few (0: it has
/// enough), until when all this holds. ARGV: holder, most, taken, wanted, life in milliseconds. Answers how many the holder may have.
///
/// What is free goes to whoever asks; but while somebody has less than an even share and wants more, nobody takes more than that.
/// Where there are fewer places than holders, whoever has waited longest goes first.
const BORROW: &str = r"
local me, most, taken, wanted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free, holders, others, short_since = most, 1, {}, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local held, wants, since, till = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
  if all[i] == me then
    short_since = tonumber(since)
  elseif tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    others[#others + 1] = {tonumber(held), tonumber(wants), tonumber(since)}
    free = free - tonumber(held)
    holders = holders + 1
  end
end
local share = math.floor(most / holders)
local lent = math.max(math.min(wanted, free), 0)
if short_since == 0 then short_since = now end
for _, other in ipairs(others) do
  local held, wants, since = other[1], other[2], other[3]
  if held < wants and held < math.max(share, 1) then
    local mine = share
    if share == 0 and (since == 0 or since >= short_since) then mine = 1 end
    lent = math.min(lent, mine)
  end
end
if wanted == 0 then
  redis.call('HDEL', KEYS[1], me)
else
  local held = math.max(lent, taken)
  if lent >= wanted then short_since = 0 elseif held > 0 then short_since = now end
  redis.call('HSET', KEYS[1], me, string.format('%d %d %.0f %.0f', held, wanted, short_since, now + ARGV[5]))
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return lent
";

/// Places of all replicas, counted in the Redis that rates are counted in.
pub(crate) struct LentPlaces {
    shared: Option<Shared>,
    borrow: Script,
    replicas: Arc<AtomicU32>,
}

impl LentPlaces {
    pub(crate) fn beside(rate: &RateLimiter) -> Self {
        Self {
            shared: rate.shared(),
            borrow: Script::new(BORROW),
            replicas: rate.replicas(),
        }
    }
}

#[async_trait]
impl SharedPlaces for LentPlaces {
    async fn borrow_places(&self, loan: &Loan) -> u32 {
        if let Some(shared) = &self.shared {
            let mut call = self.borrow.key(format!("botdeck:places:{}", loan.provider));
            call.arg(loan.holder.to_string())
                .arg(loan.most)
                .arg(loan.taken)
                .arg(loan.wanted)
                .arg(LIFE_MS);
            if let Some(lent) = shared.run(&call).await {
                return lent;
            }
        }
        share(loan.most, self.replicas.load(Ordering::Relaxed))
    }
}

/// What one of several replicas takes that do not know of each other.
fn share(most: u32, replicas: u32) -> u32 {
    (most / replicas.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_share_and_one_at_least() {
        for (most, replicas, expected) in [(56, 1, 56), (56, 2, 28), (5, 2, 2), (1, 3, 1), (8, 0, 8)] {
            assert_eq!(share(most, replicas), expected, "{most} of {replicas}");
        }
    }
}
