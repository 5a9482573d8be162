//! The dashboard: pages, components and server functions, compiled twice. With `ssr` it renders on the server, with `hydrate`
//! it wakes the same pages up in the browser.
//!
//! What lives where: `routes.rs` is the one table of pages, `pages/<page>/mod.rs` shows, `pages/<page>/api.rs` asks the server,
//! `components/` holds widgets without data of their own, `i18n/` every sentence in every language, and `ssr.rs` is the only
//! door to the server. No SQL, no use cases, no secrets here.
//!
//! To add a page: a folder under `pages/`, a line in `routes.rs`, its server functions in `FUNCTIONS` of its `api.rs` (a test
//! compares that table with what is registered), and its words in `i18n/`.

#[cfg(all(feature = "ssr", feature = "hydrate"))]
compile_error!("`ssr` and `hydrate` exclude each other: build the server and the frontend with separate cargo calls");

pub mod components;
mod failure;
pub mod i18n;
mod pages;
mod routes;
#[cfg(feature = "ssr")]
pub mod ssr;
mod state;

pub use failure::AppFailure;
#[cfg(feature = "ssr")]
pub use pages::requests_table;
pub use pages::server_functions;
pub use routes::{App, shell};

/// What every server function returns.
pub type Answer<T> = Result<T, AppFailure>;
