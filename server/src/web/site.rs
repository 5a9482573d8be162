//! The dashboard's pages, server functions and files.

use std::path::{Path, PathBuf};

use axum::{
    Router,
    http::{HeaderValue, header},
    middleware,
};
use leptos::{config::LeptosOptions, prelude::provide_context};
use leptos_axum::{LeptosRoutes, generate_route_list};
use tower::ServiceBuilder;
use tower_http::{services::ServeDir, set_header::SetResponseHeaderLayer};

use super::{AppState, sessions};

/// Where the built files are: `LEPTOS_SITE_ROOT`, or `site` beside the program, or cargo-leptos' own place.
pub fn options(addr: std::net::SocketAddr) -> LeptosOptions {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("site"));
    let root = std::env::var_os("LEPTOS_SITE_ROOT")
        .map(PathBuf::from)
        .or_else(|| beside().filter(|path| path.is_dir()))
        .unwrap_or_else(|| Path::new("target/site").to_path_buf());
    LeptosOptions::builder()
        .output_name("botdeck")
        .site_root(root.display().to_string())
        .site_pkg_dir("pkg")
        .site_addr(addr)
        .build()
}

/// Pages and server functions know the services and the session. Files may be kept by a browser, but it asks each time whether
/// they are still the same: script and wasm of two versions must not meet.
pub fn pages(state: &AppState) -> Router<AppState> {
    let services = state.services.clone();
    let context = move || provide_context(services.clone());
    let routes = generate_route_list(app::App);
    let options = state.leptos.clone();
    // Script, wasm and style go out as they were compressed at the build, or as "not modified"; no session is looked up for them.
    let built = ServiceBuilder::new()
        .layer(SetResponseHeaderLayer::if_not_present(
            header::VARY,
            HeaderValue::from_static("accept-encoding"),
        ))
        .service(
            ServeDir::new(&*options.site_root)
                .precompressed_br()
                .precompressed_gzip(),
        );
    Router::new()
        .leptos_routes_with_context(state, routes, context.clone(), move || app::shell(options.clone()))
        .fallback(leptos_axum::file_and_error_handler_with_context::<AppState, _>(
            context,
            app::shell,
        ))
        .layer(middleware::from_fn(sessions::prolong))
        .layer(sessions::layer(state))
        .route_service(&format!("/{}/{{*file}}", state.leptos.site_pkg_dir), built)
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache"),
        ))
}
