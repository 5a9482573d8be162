//! Language and colours, and what the layout of every page needs to know. No page of its own.

use domain::{Permission, views::Shell};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use super::Function;
use crate::Answer;

pub const FUNCTIONS: &[Function] = &[
    (GetShell::PATH, None::<Permission>),
    (SetLang::PATH, None),
    (SetTheme::PATH, None),
];

// public_endpoint: says who is signed in, which for a stranger is nobody.
#[server(prefix = "/api/fn", endpoint = "shell", input = GetUrl)]
pub async fn get_shell() -> Answer<Shell> {
    use crate::ssr;
    let auth = ssr::services()?.auth();
    let me = match ssr::staff().await? {
        Some(staff) => auth.me(staff).await?,
        None => None,
    };
    Ok(Shell {
        has_owner: me.is_some() || auth.has_owner().await?,
        me,
        lang: ssr::prefs().lang,
    })
}

// public_endpoint: a cookie of the visitor's own browser.
#[server(prefix = "/api/fn", endpoint = "prefs/lang")]
pub async fn set_lang(lang: String) -> Answer<()> {
    use crate::ssr;
    let lang = domain::Lang::from_tag(Some(&lang));
    ssr::remember(ssr::LANG_COOKIE, lang.tag());
    Ok(())
}

// public_endpoint: a cookie of the visitor's own browser.
#[server(prefix = "/api/fn", endpoint = "prefs/theme")]
pub async fn set_theme(theme: String) -> Answer<()> {
    use crate::ssr;
    let theme = match theme.as_str() {
        theme @ ("light" | "dark") => theme,
        _ => "auto",
    };
    ssr::remember(ssr::THEME_COOKIE, theme);
    Ok(())
}
