//! Repositories on a real Postgres: what the schema promises, and what only many connections at once can show.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test may fail like the test itself"
)]

mod constraints;
mod database;
mod directions;
mod fixtures;
mod gathering;
mod history;
mod indexes;
mod intake;
mod limit_reach;
mod migrations;
mod people;
mod queue;
mod similar;
mod transactions;
mod usage;
