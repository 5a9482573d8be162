//! The dashboard's pages, server functions and files.

use std::path::{Path, PathBuf};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use leptos::{config::LeptosOptions, prelude::provide_context};
use leptos_axum::{LeptosRoutes, generate_route_list};
use tower::ServiceBuilder;
use tower_http::{services::ServeDir, set_header::SetResponseHeaderLayer};

use super::{AppState, rendering, sessions};

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
    rendering::init();
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
        .layer(middleware::from_fn(rendering::by_one_task))
        .layer(middleware::from_fn(sessions::prolong))
        .layer(sessions::layer(state))
        .route_service(&format!("/{}/{{*file}}", state.leptos.site_pkg_dir), built)
        .layer(middleware::from_fn(caching))
}

/// What was made for somebody in particular is kept nowhere: after signing out the button Back must not show it. Files may be kept,
/// if they are asked for anew each time.
async fn caching(request: Request, next: Next) -> Response {
    let is_function = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_document = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let is_file = !is_function
        && !is_document
        && (response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED);
    let value = if is_file { "no-cache" } else { "private, no-store" };
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static(value));
    response
}
