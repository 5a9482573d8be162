//! Which trace a request is part of.

use axum::{extract::Request, middleware::Next, response::Response};
use domain::TraceId;
use tower_http::request_id::RequestId;

/// The caller's, where it sends one, so that both find what they did by the same id.
pub fn of_caller<B>(request: &Request<B>) -> Option<TraceId> {
    let header = request.headers().get("traceparent")?;
    TraceId::of_traceparent(header.to_str().ok()?)
}

/// Does what follows as part of the caller's trace. Without one the request is a trace of its own, whose id is that of `x-request-id`.
pub async fn follow(request: Request, next: Next) -> Response {
    let own = || {
        let id = request.extensions().get::<RequestId>()?;
        id.header_value().to_str().ok()?.parse().ok()
    };
    let trace = of_caller(&request).or_else(own);
    services::within_trace(trace, next.run(request)).await
}
