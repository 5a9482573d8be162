//! The built program from the outside: people at a strict fake Telegram, a strict fake model, staff at a browser.
//!
//! One module a topic, one binary for all, so that it is linked once. To add a test: start with [`app`], end with `finish`,
//! and wait only for what can be seen.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

mod albums;
mod api;
mod backlog;
mod cache;
mod clients;
mod commands;
mod configuration;
mod crash;
mod drafts;
mod edits;
mod failures;
mod files;
mod groups;
mod hostile;
mod house;
mod intake;
mod jobs_page;
mod keys_page;
mod limits;
mod logs;
mod models_page;
mod ordering;
mod playground;
mod pressure;
mod processes;
mod programs;
mod rendering;
mod requests_page;
mod revoked;
mod sessions;
mod stopped;
mod strangers;
mod streaming;
mod telegram_failures;
mod web;

use test_support::{TestApp, app::Builder, fake_telegram::User};

/// A deployment of the program that was built for these tests.
fn app() -> Builder {
    TestApp::builder(env!("CARGO_BIN_EXE_botdeck"))
}

fn anna() -> User {
    User::new(7001, "Anna").username("anna").language("en")
}

fn boris() -> User {
    User::new(7002, "Борис").language("ru")
}
