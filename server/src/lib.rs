//! The program: settings, start and stop, the web edge, the command line.
//!
//! - [`settings`]: what can be set, from where, and what is wrong with it
//! - [`cli`]: the commands; [`doctor`] checks what the program stands on
//! - [`lifecycle`]: starts the roles, stops them in order
//! - [`web`]: the router with everything that stands before a page: sessions, origin check, headers, limits
//!
//! No use case is decided here. To add a command: a variant in `cli`, a function that calls a service. To add a route: a line in
//! `web::router`, and its row in the test that walks all routes with all roles.

pub mod cli;
pub mod doctor;
mod embedded;
pub mod lifecycle;
pub mod settings;
mod telemetry;
pub mod web;
