//! What stands beside the measured ones: a proxy of a few lines that passes bodies through and knows nothing, and the fake provider as a
//! process.

use std::net::SocketAddr;

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt,
};
use test_support::FakeProvider;
use tokio::net::TcpListener;

use crate::process;

#[derive(Clone, clap::Args)]
pub struct ProxySettings {
    #[arg(long)]
    addr: SocketAddr,
    /// As `OPENAI_BASE_URL`
    #[arg(long)]
    provider: String,
}

#[derive(Clone, clap::Args)]
pub struct ProviderSettings {
    #[arg(long)]
    addr: SocketAddr,
}

/// As long as whoever started it lives.
pub async fn pass_on(settings: ProxySettings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.addr).await?;
    tokio::select! {
        served = serve(listener, settings.provider) => served,
        () = process::orphaned() => Ok(()),
    }
}

/// As long as whoever started it lives.
pub async fn provide(settings: ProviderSettings) -> anyhow::Result<()> {
    let provider = FakeProvider::start_on(settings.addr).await?;
    provider.record(false);
    process::orphaned().await;
    Ok(())
}

#[derive(Clone)]
struct Proxy {
    http: reqwest::Client,
    url: String,
}

pub async fn serve(listener: TcpListener, provider: String) -> anyhow::Result<()> {
    let proxy = Proxy {
        http: reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?,
        url: format!("{provider}/chat/completions"),
    };
    let router = Router::new()
        .route("/v1/chat/completions", post(pass))
        .with_state(proxy);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.context("the proxy ended")
}

async fn pass(State(proxy): State<Proxy>, headers: HeaderMap, body: Bytes) -> Response {
    let mut request = proxy.http.post(&proxy.url).body(body);
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if let Some(value) = headers.get(&name) {
            request = request.header(name, value);
        }
    }
    match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
            let mut response = (status, Body::from_stream(answer.bytes_stream())).into_response();
            if let Some(kind) = kind {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
