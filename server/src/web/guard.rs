//! What every request passes: who it came from, and whether a change was asked for by our own page.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Once,
};

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
    if !state.edge.trust_proxy && request.headers().contains_key(FORWARDED) {
        FORWARDED_UNTRUSTED.call_once(|| {
            tracing::warn!(
                "A request came with X-Forwarded-For, which is not believed. If a proxy stands before this process, set \
                 BOTDECK_TRUST_PROXY=true: until then all clients look like one, and share its sign-in attempts"
            );
        });
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

const FORWARDED: &str = "x-forwarded-for";
/// One line in the log is enough.
static FORWARDED_UNTRUSTED: Once = Once::new();

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
        let authority = |origin: &str| origin.split_once("://").map(|(_, authority)| authority.to_owned());
        // Under the public name only the public address counts: its http:// page may be anybody's on the way.
        let is_public = public_origin
            .and_then(authority)
            .is_some_and(|public| public.eq_ignore_ascii_case(host));
        return public_origin == Some(origin)
            || (!is_public
                && !host.is_empty()
                && authority(origin).is_some_and(|from| from.eq_ignore_ascii_case(host)));
    }
    match headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        Some(site) => matches!(site, "same-origin" | "none"),
        None => true,
    }
}

fn client_address(request: &Request, trust_proxy: bool) -> Option<String> {
    let forwarded = || {
        // The last entry of the last header is the one that our own proxy added; all before it may be the client's invention.
        let value = request.headers().get_all(FORWARDED).iter().next_back()?;
        value.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
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
        assert!(ours(&[
            ("host", "deck.example.org"),
            ("origin", "https://deck.example.org")
        ]));
        assert!(!ours(&[
            ("host", "deck.example.org"),
            ("origin", "http://deck.example.org")
        ]));
        assert!(!ours(&[("host", "127.0.0.1:3000"), ("origin", "https://evil.example")]));
        assert!(!ours(&[("host", "127.0.0.1:3000"), ("origin", "null")]));
        assert!(!ours(&[("host", "a"), ("sec-fetch-site", "cross-site")]));
        assert!(!ours(&[("host", "a"), ("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn the_client_is_who_the_nearest_proxy_says_and_nobody_without_a_proxy() {
        let from = |forwarded: &[&'static str], trust_proxy| {
            let mut request = Request::new(axum::body::Body::empty());
            let peer: SocketAddr = "198.51.100.1:4000".parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
            for value in forwarded {
                request.headers_mut().append(FORWARDED, HeaderValue::from_static(value));
            }
            client_address(&request, trust_proxy).unwrap()
        };
        assert_eq!(from(&["203.0.113.9"], false), "198.51.100.1");
        assert_eq!(from(&["203.0.113.9"], true), "203.0.113.9");
        assert_eq!(from(&["203.0.113.9, 203.0.113.10"], true), "203.0.113.10");
        // A header of the client's own, and one that the proxy added.
        assert_eq!(from(&["203.0.113.9", "203.0.113.10"], true), "203.0.113.10");
        assert_eq!(from(&[], true), "198.51.100.1");
        assert_eq!(from(&["nonsense"], true), "198.51.100.1");
    }
}
