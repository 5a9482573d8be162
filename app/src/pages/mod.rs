//! One folder per page: `mod.rs` shows it, `api.rs` asks the server.

pub mod audit;
pub mod bots;
pub mod overview;
pub mod plans;
pub mod playground;
pub mod prefs;
pub mod setup;
pub mod sign_in;
pub mod transcript;
pub mod user;
pub mod users;

use domain::Permission;

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
        playground::api::FUNCTIONS,
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
}
