//! One folder per page: `mod.rs` shows it, `api.rs` asks the server.

pub mod api_keys;
pub mod audit;
pub mod bots;
pub mod jobs;
pub mod models;
pub mod near;
pub mod overview;
pub mod plans;
pub mod playground;
pub mod prefs;
pub mod requests;
pub mod setup;
pub mod sign_in;
pub mod transcript;
pub mod user;
pub mod users;

use domain::Permission;
#[cfg(feature = "ssr")]
pub use requests::csv::requests_table;

/// A server function's path and the permission it asks for; `None` is open to everybody.
pub type Function = (&'static str, Option<Permission>);

/// Every server function. The paths are the functions' own; a test compares the table with what is registered.
pub fn server_functions() -> Vec<Function> {
    [
        prefs::FUNCTIONS,
        setup::api::FUNCTIONS,
        sign_in::api::FUNCTIONS,
        overview::api::FUNCTIONS,
        users::api::FUNCTIONS,
        user::api::FUNCTIONS,
        transcript::api::FUNCTIONS,
        plans::api::FUNCTIONS,
        bots::api::FUNCTIONS,
        jobs::api::FUNCTIONS,
        models::api::FUNCTIONS,
        near::api::FUNCTIONS,
        playground::api::FUNCTIONS,
        requests::api::FUNCTIONS,
        api_keys::api::FUNCTIONS,
        audit::api::FUNCTIONS,
    ]
    .concat()
}

#[cfg(all(test, feature = "ssr"))]
mod tests {
    use std::collections::BTreeSet;

    use leptos::server_fn::axum::server_fn_paths;

    #[test]
    fn the_table_names_every_server_function() {
        let registered: BTreeSet<String> = server_fn_paths().map(|(path, _)| path.to_owned()).collect();
        let table: BTreeSet<String> = super::server_functions()
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .collect();
        assert_eq!(registered, table);
    }

    /// Reads the sources: a server function either asks for the permission that the table states, or says why it is public.
    #[test]
    fn every_server_function_asks_for_its_permission() {
        let table = super::server_functions();
        let mut seen = 0;
        for source in SOURCES {
            let mut before = "";
            for piece in source.split("#[server(prefix").skip(1) {
                let endpoint = piece
                    .split("endpoint = \"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                    .unwrap();
                let path = format!("/api/fn/{endpoint}");
                let stated = table
                    .iter()
                    .find(|(known, _)| *known == path)
                    .map(|(_, permission)| *permission)
                    .unwrap();
                let asked = piece
                    .split("ssr::require(Permission::")
                    .nth(1)
                    .and_then(|rest| rest.split(')').next());
                let head = if before.is_empty() {
                    source.split("#[server(prefix").next().unwrap()
                } else {
                    before
                };
                let is_public = head
                    .lines()
                    .rev()
                    .take(2)
                    .any(|line| line.starts_with("// public_endpoint: "));
                assert_eq!(
                    asked,
                    stated.map(|permission| format!("{permission:?}")).as_deref(),
                    "{path}"
                );
                assert_eq!(is_public, stated.is_none(), "{path}");
                before = piece;
                seen += 1;
            }
        }
        assert_eq!(seen, table.len());
    }

    const SOURCES: &[&str] = &[
        include_str!("prefs.rs"),
        include_str!("setup/api.rs"),
        include_str!("sign_in/api.rs"),
        include_str!("overview/api.rs"),
        include_str!("users/api.rs"),
        include_str!("user/api.rs"),
        include_str!("transcript/api.rs"),
        include_str!("plans/api.rs"),
        include_str!("bots/api.rs"),
        include_str!("jobs/api.rs"),
        include_str!("models/api.rs"),
        include_str!("near/api.rs"),
        include_str!("playground/api.rs"),
        include_str!("requests/api.rs"),
        include_str!("api_keys/api.rs"),
        include_str!("audit/api.rs"),
    ];
}
