//! What the whole dashboard shares: preferences, who is signed in, and whether live figures arrive.

use domain::{
    AppError, ErrorCode, Lang, Permission, Theme,
    views::{Me, Shell},
};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_router::location::{Location, Url};

use crate::Answer;

/// Language and colours; chosen by cookie, the same on both sides of hydration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefs {
    pub lang: Lang,
    pub theme: Theme,
}

impl Prefs {
    /// As the server rendered them: it reads the cookies, the browser reads what the server wrote on `<html>`.
    #[cfg(feature = "ssr")]
    pub fn current() -> Self {
        crate::ssr::prefs()
    }

    #[cfg(not(feature = "ssr"))]
    pub fn current() -> Self {
        let attribute = |name: &str| document().document_element().and_then(|html| html.get_attribute(name));
        Self {
            lang: Lang::from_tag(attribute("lang").as_deref()),
            theme: match attribute("data-theme").as_deref() {
                Some("light") => Theme::Light,
                Some("dark") => Theme::Dark,
                _ => Theme::Auto,
            },
        }
    }
}

/// Who is signed in; asked once per document.
#[derive(Clone, Copy)]
pub struct Session(pub Resource<Answer<Shell>>);

impl Session {
    pub async fn me(self) -> Option<Me> {
        self.0.await.ok().and_then(|shell| shell.me)
    }

    /// What the signed-in person may do; nothing for nobody.
    pub async fn may(self) -> May {
        May(self.me().await.map(|me| me.permissions).unwrap_or_default())
    }
}

pub fn use_session() -> Session {
    expect_context()
}

/// The permissions of whoever looks at the page: what is not allowed is not offered.
#[derive(Clone, Debug, Default)]
pub struct May(Vec<Permission>);

impl May {
    pub fn permits(&self, permission: Permission) -> bool {
        self.0.contains(&permission)
    }
}

/// Whether the figures on the page follow the server by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// This page has nothing that moves.
    #[default]
    Still,
    Live,
    /// The server does not answer; what is shown is old.
    Cut,
}

#[derive(Clone, Copy)]
pub struct LiveLine(pub RwSignal<Line>);

impl LiveLine {
    pub fn set(self, line: Line) {
        self.0.set(line);
    }
}

pub fn use_line() -> LiveLine {
    expect_context()
}

/// How often a form has been saved with success: as a resource's source it makes the page show the new state.
pub fn successes<S>(action: ServerAction<S>) -> Memo<usize>
where
    S: ServerFn + Clone + Send + Sync + 'static,
    S::Output: Clone + Send + Sync + 'static,
    S::Error: Clone + Send + Sync + 'static,
{
    Memo::new(move |before| {
        let saved = action.value().with(|value| matches!(value, Some(Ok(_))));
        before.copied().unwrap_or(0) + usize::from(saved)
    })
}

/// The failure that a form met last, whether the browser sent it with our script or without.
pub fn failure<S>(action: ServerAction<S>) -> Signal<Option<AppError>>
where
    S: ServerFn<Error = crate::AppFailure> + Clone + Send + Sync + 'static,
    S::Output: Send + Sync + 'static,
{
    Signal::derive(move || {
        action.value().with(|value| {
            value
                .as_ref()
                .and_then(|result| result.as_ref().err())
                .map(|failure| failure.0.clone())
        })
    })
}

/// A path of this dashboard to go on to after signing in; anything else leads to the overview.
pub fn local_path(next: &str) -> String {
    let local = next.starts_with('/')
        && !next.starts_with("//")
        && next
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '\\' | '"' | '<' | '>'));
    if local { next.to_owned() } else { "/".to_owned() }
}

/// The way to sign in and then come back to `here`, with its filters.
pub fn sign_in_and_back(here: &Location) -> String {
    let (path, query) = (here.pathname.get_untracked(), here.search.get_untracked());
    sign_in_then(&path, &query)
}

fn sign_in_then(path: &str, query: &str) -> String {
    let next = match query.trim_start_matches('?') {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    format!("/sign-in?next={}", Url::escape(&next))
}

/// The address of a page with its filters, those that are empty left out. Values as they stand in an address: what people typed has to
/// be escaped.
pub fn with_filters(path: &str, filters: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let filters = filters.into_iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = filters.map(|(name, value)| format!("{name}={value}")).collect();
    match query.as_slice() {
        [] => path.to_owned(),
        query => format!("{path}?{}", query.join("&")),
    }
}

/// Not found, for pages whose address holds something that is no id.
pub fn not_found() -> crate::AppFailure {
    ErrorCode::NotFound.into()
}

#[cfg(test)]
mod tests {
    use super::{local_path, sign_in_then};

    #[test]
    fn signing_in_again_leads_back_to_the_same_view() {
        assert_eq!(sign_in_then("/users", ""), "/sign-in?next=%2Fusers");
        assert_eq!(
            sign_in_then("/users", "q=ann&status=any"),
            "/sign-in?next=%2Fusers%3Fq%3Dann%26status%3Dany"
        );
        assert_eq!(sign_in_then("/users", "?q=1"), sign_in_then("/users", "q=1"));
    }

    #[test]
    fn signing_in_leads_only_to_our_own_pages() {
        assert_eq!(local_path("/users?q=ann"), "/users?q=ann");
        for elsewhere in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/a\r\nX: y",
            "javascript:1",
        ] {
            assert_eq!(local_path(elsewhere), "/", "{elsewhere} was taken");
        }
    }
}
