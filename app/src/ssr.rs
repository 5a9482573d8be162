//! The only door to the server: who asks, what they may, and the services that do the work.

use domain::{AppError, ErrorCode, Lang, Permission, StaffId, Theme, views::api_keys::FreshKey};
use http::{HeaderValue, StatusCode, header, request::Parts};
use leptos::{nonce::Nonce, prelude::use_context};
use leptos_axum::ResponseOptions;
use services::{Actor, Origin, Services};
use tower_sessions::Session;

use crate::{AppFailure, state::Prefs};

/// Path prefix of every server function.
pub const FUNCTIONS: &str = "/api/fn";

/// Key of the session under which the signed-in member of staff is kept.
pub use services::SESSION_STAFF as STAFF;

/// The use cases, as the server put them into the context.
pub fn services() -> Result<Services, AppFailure> {
    use_context::<Services>().ok_or_else(|| ErrorCode::Internal.into())
}

/// Who asks, if they may; every server function that is not public starts with this.
pub async fn require(permission: Permission) -> Result<Actor, AppFailure> {
    let staff = staff().await?;
    Ok(services()?.auth().authorise(staff, permission, origin()).await?)
}

/// The member of staff of this session.
pub async fn staff() -> Result<Option<StaffId>, AppFailure> {
    session().await?.get(STAFF).await.map_err(internal)
}

pub async fn session() -> Result<Session, AppFailure> {
    leptos_axum::extract::<Session>().await.map_err(internal)
}

/// Starts a session for `staff` under a new id, so that an id planted before signing in is worth nothing.
pub async fn start_session(staff: StaffId) -> Result<(), AppFailure> {
    let session = session().await?;
    session.cycle_id().await.map_err(internal)?;
    session.insert(STAFF, staff).await.map_err(internal)
}

pub async fn end_session() -> Result<(), AppFailure> {
    session().await?.flush().await.map_err(internal)
}

/// Where the request came from, as the server's middleware noted it.
pub fn origin() -> Origin {
    use_context::<Parts>()
        .and_then(|parts| parts.extensions.get::<Origin>().cloned())
        .unwrap_or_default()
}

/// Key of the session under which a fresh API key waits, sealed, for the page that is to show it.
const FRESH_KEY: &str = "fresh_api_key";

/// A form sent without our script is answered by a redirect: what it made has to wait for the page after that.
pub async fn keep_fresh_key(fresh: &FreshKey) -> Result<(), AppFailure> {
    if !use_context::<Parts>().is_some_and(|parts| wants_page(&parts)) {
        return Ok(());
    }
    let sealed = services()?.api_keys().conceal(fresh)?;
    session().await?.insert(FRESH_KEY, sealed).await.map_err(internal)
}

/// The key that waits, and never again.
pub async fn take_fresh_key() -> Result<Option<FreshKey>, AppFailure> {
    let sealed: Option<String> = session().await?.remove(FRESH_KEY).await.map_err(internal)?;
    Ok(sealed.and_then(|sealed| services().ok()?.api_keys().reveal(&sealed)))
}

/// `scheme://host` as this browser reached us.
pub fn base_url() -> String {
    let Some(parts) = use_context::<Parts>() else {
        return String::new();
    };
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{}", text("host").unwrap_or("localhost"))
}

fn internal<E>(_: E) -> AppFailure {
    AppError::new(ErrorCode::Internal).into()
}

/// Language and colours that this browser asked for.
pub fn prefs() -> Prefs {
    let Some(parts) = use_context::<Parts>() else {
        return Prefs::default();
    };
    let lang = match cookie(&parts, LANG_COOKIE).as_deref() {
        Some("ru") => Lang::Ru,
        Some("en") => Lang::En,
        _ => accepted_language(&parts),
    };
    let theme = match cookie(&parts, THEME_COOKIE).as_deref() {
        Some("light") => Theme::Light,
        Some("dark") => Theme::Dark,
        _ => Theme::Auto,
    };
    Prefs { lang, theme }
}

pub const LANG_COOKIE: &str = "lang";
pub const THEME_COOKIE: &str = "theme";

/// Remembers a preference for a year.
pub fn remember(name: &str, value: &str) {
    let cookie = format!("{name}={value}; Path=/; Max-Age=31536000; SameSite=Lax");
    if let (Some(options), Ok(value)) = (use_context::<ResponseOptions>(), HeaderValue::from_str(&cookie)) {
        options.append_header(header::SET_COOKIE, value);
    }
}

fn cookie(parts: &Parts, name: &str) -> Option<String> {
    parts
        .headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// The first language of `Accept-Language` by its weight; what we do not speak counts as English only if nothing else fits.
fn accepted_language(parts: &Parts) -> Lang {
    let Some(accepted) = parts
        .headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok())
    else {
        return Lang::default();
    };
    let mut wanted: Vec<(f32, &str)> = accepted
        .split(',')
        .map(|part| {
            let (tag, weight) = part.split_once(";q=").unwrap_or((part, "1"));
            (weight.trim().parse().unwrap_or(0.0), tag.trim())
        })
        .collect();
    wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
    wanted
        .iter()
        .find(|(_, tag)| tag.starts_with("en") || Lang::from_tag(Some(tag)) == Lang::Ru)
        .map_or(Lang::En, |(_, tag)| Lang::from_tag(Some(tag)))
}

/// True for a page, and for a form sent by a browser without our script: what it gets must be a page or a redirect.
fn wants_page(parts: &Parts) -> bool {
    parts
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// The status of a server function's failure. A plain form is redirected back to its page instead, which shows the failure.
pub fn set_answer_status(code: ErrorCode) {
    let plain_form = use_context::<Parts>().is_some_and(|parts| wants_page(&parts));
    if !plain_form {
        set_status(code);
    }
}

/// The status of the page that is being rendered.
pub fn set_status(code: ErrorCode) {
    if let (Some(options), Ok(status)) = (use_context::<ResponseOptions>(), StatusCode::from_u16(code.status())) {
        options.set_status(status);
    }
}

/// Where a plain form goes next. With our script the page itself loads the new document, as the session has changed.
pub fn redirect_plain_form(path: &str) {
    if use_context::<Parts>().is_some_and(|parts| wants_page(&parts)) {
        leptos_axum::redirect(path);
    }
}

/// Only our own files and this answer's own inline scripts may run; nothing is loaded from anywhere else.
pub fn send_content_policy() {
    let (Some(options), Some(nonce)) = (use_context::<ResponseOptions>(), use_context::<Nonce>()) else {
        return;
    };
    // cargo-leptos's live reload listens on a port of its own.
    let reload = if cfg!(debug_assertions) { " ws:" } else { "" };
    let policy = format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'{reload}; manifest-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        options.insert_header(header::CONTENT_SECURITY_POLICY, policy);
    }
}
