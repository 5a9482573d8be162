//! Strict stand-ins for what Botdeck talks to, for tests, benchmarks and trying things by hand.
//!
//! Here live [`fake_telegram`], a Bot API server, [`fake_provider`], an OpenAI-compatible one, [`fake_anthropic`], and [`app`], which starts the
//! built program between them. The fakes listen on real sockets, refuse what the real ones refuse, fail on request and record
//! what they saw. Nothing of the product belongs here, and the product never depends on this crate outside of tests. A new fake is a new module with its own server, inspectable
//! through a handle that can be cloned, and a test in `tests/` that proves what it refuses.

pub mod app;
pub mod fake_anthropic;
pub mod fake_provider;
pub mod fake_telegram;
mod net;
mod wait;

pub use app::TestApp;
pub use fake_provider::FakeProvider;
pub use fake_telegram::FakeTelegram;
pub use wait::NotSeen;
