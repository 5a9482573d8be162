//! Workers on a real Postgres and Redis: messages of the playground, answered by a provider that does as it is told.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test may fail like the test itself"
)]

#[expect(dead_code, reason = "the tests of repositories need more of it")]
#[path = "../../../repositories/tests/it/database.rs"]
mod database;
mod deck;
mod scheduler;
mod workers;
