//! What every request passes: who it came from, and whether a change was asked for by our own page.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::{AppError, ErrorCode, Lang};
use services::Origin;
use tower_http::request_id::RequestId;

use super::AppState;

/// Notes the origin for the audit trail and refuses changes that another site's page asks for.
pub async fn check(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // Programs authenticate by what they send, not by a cookie that a browser adds.
    let for_programs = request.uri().path().starts_with("/telegram/") || request.uri().path().starts_with("/v1/");
    if changes && !for_programs && !is_ours(request.headers(), state.edge.public_origin.as_deref()) {
        let error = AppError::with(ErrorCode::Origin, "the request of a page of this site");
        return (StatusCode::FORBIDDEN, axum::Json(error)).into_response();
    }
    let origin = Origin {
        ip: client_address(&request, state.edge.trust_proxy),
        request_id: request
            .extensions()
            .get::<RequestId>()
            .and_then(|id| id.header_value().to_str().ok())
            .map(str::to_owned),
        lang: lang(request.headers()),
    };
    request.extensions_mut().insert(origin);
    if takes_anything(&request) {
        // A page is HTML for a client that does not say what it wants, too: leptos redirects only those who ask for HTML.
        request
            .headers_mut()
            .insert(header::ACCEPT, HeaderValue::from_static("text/html"));
    }
    next.run(request).await
}

fn takes_anything(request: &Request) -> bool {
    let accept = request.headers().get(header::ACCEPT);
    let anything = accept.is_none_or(|accept| accept.to_str().is_ok_and(|accept| accept.trim() == "*/*"));
    *request.method() == Method::GET && anything && !request.uri().path().starts_with("/api/")
}

/// Browsers say where a request comes from in `Sec-Fetch-Site` and `Origin`. A client that says neither is no browser, and has
/// no cookie that it did not mean to send.
fn is_ours(headers: &HeaderMap, public_origin: Option<&str>) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(origin) = text(header::ORIGIN) {
        let host = text(header::HOST).unwrap_or_default();
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        return public_origin == Some(origin) || (!host.is_empty() && authority.eq_ignore_ascii_case(host));
    }
    match headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        Some(site) => matches!(site, "same-origin" | "none"),
        None => true,
    }
}

fn client_address(request: &Request, trust_proxy: bool) -> Option<String> {
    let forwarded = || {
        let value = request.headers().get("x-forwarded-for")?.to_str().ok()?;
        // The last entry is the one that our own proxy added.
        value.rsplit(',').next()?.trim().parse::<std::net::IpAddr>().ok()
    };
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let address = if trust_proxy { forwarded().or(peer) } else { peer };
    address.map(|address| address.to_string())
}

fn lang(headers: &HeaderMap) -> Lang {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let chosen = cookies
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix("lang="));
    let accepted = headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok());
    Lang::from_tag(chosen.or(accepted.and_then(|list| list.split([',', ';']).next())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), (*value).parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_our_own_pages_may_ask_for_changes() {
        let ours = |pairs| is_ours(&headers(pairs), Some("https://deck.example.org"));
        assert!(ours(&[("host", "127.0.0.1:3000"), ("origin", "http://127.0.0.1:3000")]));
        assert!(ours(&[("host", "inner:3000"), ("origin", "https://deck.example.org")]));
        assert!(ours(&[("host", "a")]));
        assert!(ours(&[("host", "a"), ("sec-fetch-site", "same-origin")]));
        assert!(!ours(&[("host", "127.0.0.1:3000"), ("origin", "https://evil.example")]));
        assert!(!ours(&[("host", "127.0.0.1:3000"), ("origin", "null")]));
        assert!(!ours(&[("host", "a"), ("sec-fetch-site", "cross-site")]));
        assert!(!ours(&[("host", "a"), ("sec-fetch-site", "same-site")]));
    }
}
