//! Services on a real Postgres and Redis: what a use case promises, however many ask at once and wherever it is cut short.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test may fail like the test itself"
)]

mod answer_cache;
mod api_keys;
mod app;
mod audit;
mod auth;
mod bot_board;
mod bots;
mod call_faults;
mod calls;
#[expect(dead_code, reason = "the tests of repositories need more of it")]
#[path = "../../../repositories/tests/it/database.rs"]
mod database;
mod history;
mod intake;
mod jobs_board;
mod leases;
mod limit_effect;
mod limits;
mod models;
mod places;
mod plan_models;
mod queue;
mod rate;
mod requests;
mod scopes;
mod settle;
mod similar;
mod users;
