//! Somebody at a browser, as far as HTTP goes: keeps cookies, follows no redirect.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{ACCEPT, COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::OrFail;
use crate::net::lock;

/// A test that reads a stream for longer has gone wrong.
const LONGEST_STREAM: Duration = Duration::from_secs(120);

/// One visitor with their cookies.
pub struct Visitor {
    client: reqwest::Client,
    base: String,
    cookies: Mutex<BTreeMap<String, String>>,
    origin: Option<String>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: StatusCode,
    pub location: Option<String>,
    /// `Set-Cookie` as it came.
    pub set_cookies: Vec<String>,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Page {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Visitor {
    /// Nobody yet.
    pub fn new(base: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build();
        Self {
            client: client.or_fail("no HTTP client"),
            base: base.trim_end_matches('/').to_owned(),
            cookies: Mutex::default(),
            origin: None,
        }
    }

    /// Says to come from a page of this origin.
    pub fn from_origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.to_owned());
        self
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        lock(&self.cookies).get(name).cloned()
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        lock(&self.cookies).insert(name.to_owned(), value.to_owned());
    }

    /// A page, as a browser asks for it.
    pub async fn page(&self, path: &str) -> Page {
        let request = self.request(Method::GET, path).header(ACCEPT, "text/html");
        self.send(request).await
    }

    /// A GET of a program.
    pub async fn get(&self, path: &str) -> Page {
        let request = self.request(Method::GET, path).header(ACCEPT, "application/json");
        self.send(request).await
    }

    /// A form, as our script sends it.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.form(path, fields).header(ACCEPT, "application/json");
        self.send(request).await
    }

    /// A form, as a browser without script sends it.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self
            .form(path, fields)
            .header(ACCEPT, "text/html,application/xhtml+xml");
        self.send(request).await
    }

    /// The head of an answer that has no end, such as a stream of events.
    pub async fn open(&self, path: &str) -> StatusCode {
        let response = self.request(Method::GET, path).send().await.or_fail(path);
        response.status()
    }

    /// A stream of server-sent events, to be read with `chunk`.
    pub async fn events(&self, path: &str) -> reqwest::Response {
        let request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        let response = request.timeout(LONGEST_STREAM).send().await.or_fail(path);
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let mut url = reqwest::Url::parse("http://form/").or_fail("a constant");
        url.query_pairs_mut().extend_pairs(fields);
        let body = url.query().unwrap_or_default().to_owned();
        self.request(Method::POST, path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        let cookies: Vec<String> = lock(&self.cookies)
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        if let Some(origin) = &self.origin {
            request = request.header(ORIGIN, origin);
        }
        request
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let response = request.send().await.or_fail("no answer of botdeck");
        let headers = response.headers().clone();
        let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let set_cookies: Vec<String> = headers.get_all(SET_COOKIE).iter().map(text).collect();
        for cookie in &set_cookies {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                lock(&self.cookies).insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Page {
            status: response.status(),
            location: headers.get(LOCATION).map(text),
            set_cookies,
            headers,
            body: response.text().await.or_fail("an answer without an end"),
        }
    }
}
