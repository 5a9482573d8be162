//! What the build made for the browser: sent as it was compressed there, and only when it has changed.

use std::path::PathBuf;

use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, IF_MODIFIED_SINCE, LAST_MODIFIED, VARY},
};

use crate::app;

/// A site whose compressed files hold other words than they would if they were made from the plain ones.
fn site() -> PathBuf {
    let root = std::env::temp_dir().join(format!("botdeck-site-{:016x}", rand::random::<u64>()));
    let pkg = root.join("pkg");
    std::fs::create_dir_all(&pkg).unwrap();
    for (name, text) in [
        (
            "botdeck.wasm",
            "the plain file, long enough to be compressed by whoever likes to",
        ),
        ("botdeck.wasm.br", "made by brotli"),
        ("botdeck.wasm.gz", "made by gzip"),
        ("alone.js", "nothing lies beside it"),
    ] {
        std::fs::write(pkg.join(name), text).unwrap();
    }
    std::fs::write(root.join("favicon.svg"), "<svg/>").unwrap();
    root
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> String {
    let values = response.headers().get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(", ")
}

#[tokio::test]
async fn files_are_sent_as_they_were_compressed_at_the_build() {
    let root = site();
    let app = app().with("LEPTOS_SITE_ROOT", root.to_str().unwrap()).start().await;
    // A client that does not unpack, and so sees what went over the wire.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| client.request(Method::GET, format!("{}{path}", app.base));
    for (accepts, encoding, body) in [
        ("gzip, deflate, br, zstd", "br", "made by brotli"),
        ("gzip, deflate", "gzip", "made by gzip"),
        (
            "identity",
            "",
            "the plain file, long enough to be compressed by whoever likes to",
        ),
    ] {
        let response = get("/pkg/botdeck.wasm").header(ACCEPT_ENCODING, accepts).send();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{accepts}");
        assert_eq!(header(&response, CONTENT_ENCODING), encoding, "{accepts}");
        assert_eq!(header(&response, CONTENT_TYPE), "application/wasm", "{accepts}");
        assert_eq!(header(&response, VARY), "accept-encoding", "{accepts}");
        assert_eq!(header(&response, CACHE_CONTROL), "no-cache", "{accepts}");
        let changed = header(&response, LAST_MODIFIED);
        assert!(!changed.is_empty(), "{accepts}: nothing to ask by");
        assert_eq!(response.text().await.unwrap(), body, "{accepts}");

        let again = get("/pkg/botdeck.wasm")
            .header(ACCEPT_ENCODING, accepts)
            .header(IF_MODIFIED_SINCE, changed)
            .send();
        let again = again.await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{accepts}");
        assert_eq!(again.text().await.unwrap(), "", "{accepts}");
    }
    let alone = get("/pkg/alone.js").header(ACCEPT_ENCODING, "identity").send();
    assert_eq!(alone.await.unwrap().text().await.unwrap(), "nothing lies beside it");
    assert_eq!(
        get("/pkg/none.js").send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    let public = get("/favicon.svg").send().await.unwrap();
    assert_eq!(header(&public, CACHE_CONTROL), "no-cache");
    let outside = get("/pkg/..%2f..%2fetc/passwd").send().await.unwrap();
    assert_eq!(outside.status(), StatusCode::NOT_FOUND);
    app.finish().await;
    std::fs::remove_dir_all(root).unwrap();
}
