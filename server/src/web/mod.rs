//! The web edge: every route, and what stands before it.

mod csv;
mod guard;
mod health;
mod playground;
mod rendering;
mod requests;
mod sessions;
mod site;
mod trace;
mod v1;
mod webhook;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    http::{HeaderName, HeaderValue, Request, header},
    middleware,
    response::Response,
    routing::{get, post},
};
use leptos::config::LeptosOptions;
use secrecy::SecretString;
use services::Services;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    set_header::SetResponseHeaderLayer,
    trace::TraceLayer,
};
use tracing::{Span, field};

pub use site::options as site_options;

/// What routes may touch.
#[derive(Clone)]
pub struct AppState {
    pub services: Services,
    pub leptos: LeptosOptions,
    pub edge: Arc<Edge>,
}

/// How the outside reaches us.
pub struct Edge {
    /// Browsers come by https: cookies are `Secure` and carry the `__Host-` prefix.
    pub https: bool,
    /// `scheme://host[:port]` of the public address.
    pub public_origin: Option<String>,
    pub trust_proxy: bool,
    pub metrics_token: Option<SecretString>,
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.leptos.clone()
    }
}

/// A Telegram update is a few kilobytes, a form less; nobody has reason to send more.
const BODY_LIMIT: usize = 1024 * 1024;

/// Routes that are not pages, as (method, path, permission); `None` is open. A test walks them with every role.
pub const ROUTES: &[(&str, &str, Option<domain::Permission>)] = &[
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("POST", "/telegram/{bot_id}", None),
    (
        "GET",
        "/api/playground/{bot_id}/events",
        Some(domain::Permission::UsePlayground),
    ),
    ("GET", "/api/requests.csv", Some(domain::Permission::ReadRequests)),
];

/// Only `web`: everything. Without it (a worker): health and metrics alone.
pub fn router(state: AppState, with_pages: bool) -> Router {
    let probes = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics));
    let router = if with_pages {
        probes
            .merge(site::pages(&state))
            .route("/telegram/{bot_id}", post(webhook::receive))
            .merge(
                Router::new()
                    .route("/api/playground/{bot_id}/events", get(playground::events))
                    .route("/api/requests.csv", get(requests::export))
                    .layer(sessions::layer(&state)),
            )
            .layer(CompressionLayer::new())
            // Uncompressed: streams of small pieces, on their way to programs beside us.
            .merge(v1::router())
    } else {
        probes.layer(CompressionLayer::new())
    };
    let request_id = HeaderName::from_static("x-request-id");
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::new(request_id.clone(), MakeRequestUuid))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_request(())
                .on_response(answered),
        )
        .layer(PropagateRequestIdLayer::new(request_id))
        .layer(middleware::from_fn(trace::follow))
        .layer(CatchPanicLayer::new())
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::STRICT_TRANSPORT_SECURITY,
            state.edge.https.then(|| HeaderValue::from_static("max-age=31536000")),
        ))
        .layer(fixed(header::REFERRER_POLICY, "same-origin"))
        .layer(fixed(header::X_FRAME_OPTIONS, "DENY"))
        .layer(fixed(
            HeaderName::from_static("permissions-policy"),
            "camera=(), microphone=(), geolocation=()",
        ))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(state.clone(), guard::check));
    router.layer(layers).with_state(state)
}

fn fixed(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// Paths hold ids only; a query may hold what somebody searched for, and the set-up link's token, and is not logged.
fn span<B>(request: &Request<B>) -> Span {
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    let span = tracing::info_span!(
        "request",
        http.method = %request.method(),
        http.path = %request.uri().path(),
        request.id = %id,
        trace.id = field::Empty,
        http.status = field::Empty
    );
    if let Some(trace) = trace::of_caller(request) {
        span.record("trace.id", field::display(trace));
    }
    span
}

fn answered<B>(response: &Response<B>, latency: Duration, span: &Span) {
    span.record("http.status", response.status().as_u16());
    metrics::histogram!("botdeck_http_seconds").record(latency.as_secs_f64());
    metrics::counter!("botdeck_http_requests_total", "status" => response.status().as_u16().to_string()).increment(1);
    if response.status().is_server_error() {
        tracing::warn!(latency_ms = latency.as_millis(), "Answered with {}", response.status());
    } else {
        tracing::debug!(latency_ms = latency.as_millis(), "Answered with {}", response.status());
    }
}
