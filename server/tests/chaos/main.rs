//! Two replicas of the built program while everything around them breaks: `bin/test chaos`.
//!
//! Each test is one scenario: people write at random moments, something is killed, frozen, slowed or lied to meanwhile, and in
//! the end the same questions are asked whatever it was ([`check`]): nobody unanswered, nobody answered or billed twice, each
//! chat in order, the ledger equal to what the provider told, nothing left reserved, no answer later and no log longer than its
//! bound. Each has a Postgres and a Redis of its own ([`servers`]), since it may be those that break.
//!
//! Each prints one line of a table; `BOTDECK_CHAOS_TABLE` names a file that gets it too. `BOTDECK_CRASH_SEED` repeats a run's
//! moments, `BOTDECK_CHAOS_FULL=1` makes every scenario long. To add one: [`world::World::start`], `write`, what breaks, `end`.

mod balancer;
mod check;
mod load;
mod outside;
mod proxy;
mod replicas;
mod servers;
mod storage;
mod world;
