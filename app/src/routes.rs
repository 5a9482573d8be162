//! The document, the one table of pages, and the frame around them.

use domain::{ErrorCode, Permission, Theme};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_meta::{MetaTags, Title, provide_meta_context};
use leptos_router::{
    SsrMode,
    components::{Outlet, ParentRoute, Redirect, Route, Router, Routes},
    hooks::{use_location, use_query_map},
    path,
};

use crate::{
    components::{Glyph, Icon, PageError, QueryForm},
    i18n::{Texts, provide_texts, use_texts},
    pages::{
        api_keys::ApiKeysPage,
        audit::AuditPage,
        bots::BotsPage,
        jobs::JobsPage,
        models::ModelsPage,
        near::NearPage,
        overview::OverviewPage,
        plans::{PlansPage, edit::EditLimitsPage},
        playground::PlaygroundPage,
        prefs::{SetLang, SetTheme, get_shell},
        requests::RequestsPage,
        setup::SetupPage,
        sign_in::{SignInPage, api::SignOut},
        transcript::TranscriptPage,
        user::UserPage,
        users::UsersPage,
    },
    state::{Line, LiveLine, Prefs, Session, sign_in_and_back, use_line, use_session},
};

/// The document around the app; the browser never renders it.
pub fn shell(options: LeptosOptions) -> impl IntoView {
    #[cfg(feature = "ssr")]
    crate::ssr::send_content_policy();
    let prefs = Prefs::current();
    view! {
        <!DOCTYPE html>
        <html lang=prefs.lang.tag() data-theme=theme_name(prefs.theme)>
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <meta name="color-scheme" content="light dark" />
                <meta name="robots" content="noindex, nofollow" />
                <link rel="icon" href="/favicon.svg" type="image/svg+xml" />
                <link rel="manifest" href="/manifest.webmanifest" />
                <link rel="stylesheet" id="leptos" href="/pkg/botdeck.css" />
                <AutoReload options=options.clone() />
                <HydrationScripts options />
                <MetaTags />
            </head>
            <body>
                <App />
            </body>
        </html>
    }
}

pub const fn theme_name(theme: Theme) -> &'static str {
    match theme {
        Theme::Auto => "auto",
        Theme::Light => "light",
        Theme::Dark => "dark",
    }
}

/// The whole dashboard. All pages are rendered to the end before the first byte leaves, so that they read without script and
/// carry the status of what happened.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    let prefs = Prefs::current();
    provide_context(prefs);
    provide_texts(prefs.lang);
    provide_context(LiveLine(RwSignal::new(Line::Still)));
    provide_context(Session(Resource::new_blocking(|| (), |()| get_shell())));
    // Forms and buttons that need script show themselves from here on; tests wait for it.
    Effect::new(|_| {
        if let Some(html) = document().document_element() {
            let _ = html.set_attribute("data-awake", "");
        }
    });
    view! {
        <Title formatter=window_title />
        <Router>
            <Routes fallback=NotFound>
                <Route path=path!("/setup") view=SetupPage ssr=SsrMode::Async />
                <Route path=path!("/sign-in") view=SignInPage ssr=SsrMode::Async />
                <ParentRoute path=path!("") view=Frame ssr=SsrMode::Async>
                    <Route path=path!("/") view=OverviewPage ssr=SsrMode::Async />
                    <Route path=path!("/users") view=UsersPage ssr=SsrMode::Async />
                    <Route path=path!("/users/:id") view=UserPage ssr=SsrMode::Async />
                    <Route path=path!("/conversations/:id") view=TranscriptPage ssr=SsrMode::Async />
                    <Route path=path!("/plans") view=PlansPage ssr=SsrMode::Async />
                    <Route path=path!("/plans/edit") view=EditLimitsPage ssr=SsrMode::Async />
                    <Route path=path!("/bots") view=BotsPage ssr=SsrMode::Async />
                    <Route path=path!("/bots/:id/playground") view=PlaygroundPage ssr=SsrMode::Async />
                    <Route path=path!("/bots/:id/near") view=NearPage ssr=SsrMode::Async />
                    <Route path=path!("/models") view=ModelsPage ssr=SsrMode::Async />
                    <Route path=path!("/jobs") view=JobsPage ssr=SsrMode::Async />
                    <Route path=path!("/requests") view=RequestsPage ssr=SsrMode::Async />
                    <Route path=path!("/api-keys") view=ApiKeysPage ssr=SsrMode::Async />
                    <Route path=path!("/audit") view=AuditPage ssr=SsrMode::Async />
                </ParentRoute>
            </Routes>
        </Router>
    }
}

/// A person's name may be in it. leptos_meta puts a title into the document as it is, so the server has to escape it; in the browser
/// it is set as text.
fn window_title(title: String) -> String {
    let title = if cfg!(feature = "ssr") {
        title.replace('&', "&amp;").replace('<', "&lt;")
    } else {
        title
    };
    if title.is_empty() {
        "Botdeck".to_owned()
    } else {
        format!("{title} · Botdeck")
    }
}

#[component]
fn NotFound() -> impl IntoView {
    view! {
        <main id="main" class="alone">
            <PageError error=ErrorCode::NotFound.into() />
        </main>
    }
}

/// A place in the rail.
struct Place {
    href: &'static str,
    glyph: Glyph,
    words: fn(&Texts) -> &'static str,
    /// What one must be allowed to do there.
    asks: Permission,
}

const fn place(href: &'static str, glyph: Glyph, words: fn(&Texts) -> &'static str, asks: Permission) -> Place {
    Place {
        href,
        glyph,
        words,
        asks,
    }
}

const PLACES: [Place; 9] = [
    place("/", Glyph::Overview, |t| t.nav_overview, Permission::ReadOverview),
    place("/users", Glyph::Users, |t| t.nav_users, Permission::ReadUsers),
    place("/plans", Glyph::Limits, |t| t.nav_plans, Permission::ReadLimits),
    place("/bots", Glyph::Bots, |t| t.nav_bots, Permission::ReadBots),
    place("/models", Glyph::Models, |t| t.nav_models, Permission::ReadModels),
    place("/jobs", Glyph::Queue, |t| t.nav_jobs, Permission::ReadJobs),
    place(
        "/requests",
        Glyph::Requests,
        |t| t.nav_requests,
        Permission::ReadRequests,
    ),
    place("/api-keys", Glyph::Key, |t| t.nav_keys, Permission::ReadKeys),
    place("/audit", Glyph::Audit, |t| t.nav_audit, Permission::ReadAudit),
];

/// Rail, top bar and the page between them.
#[component]
fn Frame() -> impl IntoView {
    let t = use_texts();
    view! {
        <a class="skip" href="#main">{t.skip}</a>
        <Guard />
        <div class="deck">
            <Rail />
            <div class="deck-main">
                <TopBar />
                <main id="main" tabindex="-1">
                    <Outlet />
                </main>
            </div>
        </div>
    }
}

/// Sends strangers to the door, and everybody to the set-up while there is no owner.
#[component]
fn Guard() -> impl IntoView {
    let session = use_session();
    let here = use_location();
    view! {
        <Suspense>
            {move || {
                let here = here.clone();
                Suspend::new(async move {
                    let shell = session.0.await.ok()?;
                    if shell.me.is_some() {
                        return None;
                    }
                    let path = if shell.has_owner {
                        sign_in_and_back(&here)
                    } else {
                        "/setup".to_owned()
                    };
                    Some(view! { <Redirect path /> })
                })
            }}
        </Suspense>
    }
}

#[component]
fn Rail() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let here = use_location().pathname;
    view! {
        <nav class="rail" aria-label=t.nav>
            <a class="brand" href="/" aria-label=t.brand_home>
                <Brand />
                <span class="brand-name">"Botdeck"</span>
            </a>
            <Suspense>
                {move || Suspend::new(async move {
                    let may = session.may().await;
                    PLACES
                        .into_iter()
                        .filter(|place| may.permits(place.asks))
                        .map(|Place { href, glyph, words, .. }| {
                            let current = move || {
                                let path = here.get();
                                let inside = if href == "/" {
                                    path == "/"
                                } else {
                                    path.starts_with(href) || (href == "/users" && path.starts_with("/conversations"))
                                };
                                inside.then_some("page")
                            };
                            view! {
                                <a class="rail-link" href=href aria-current=current title=words(t)>
                                    <Icon glyph />
                                    <span>{words(t)}</span>
                                </a>
                            }
                        })
                        .collect_view()
                })}
            </Suspense>
        </nav>
    }
}

/// The mark: two cards of a deck, the upper one speaking.
#[component]
pub fn Brand() -> impl IntoView {
    view! {
        <svg class="brand-mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
            <rect class="brand-back" x="9" y="3" width="20" height="20" rx="6" />
            <path class="brand-front" d="M9 9h8a6 6 0 0 1 6 6v2a6 6 0 0 1-6 6h-4l-5 5v-5.2A6 6 0 0 1 3 17v-2a6 6 0 0 1 6-6z" />
            <circle class="brand-eye" cx="9.5" cy="16" r="1.6" />
            <circle class="brand-eye" cx="16.5" cy="16" r="1.6" />
        </svg>
    }
}

#[component]
fn TopBar() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    view! {
        <header class="topbar">
            <Suspense>
                {move || Suspend::new(async move {
                    let me = session.me().await;
                    let finds_people = me.as_ref().is_some_and(|me| me.permissions.contains(&Permission::ReadUsers));
                    let search = finds_people.then(|| view! { <Search /> });
                    let account = me.map(|me| {
                        view! {
                            <details class="menu">
                                <summary class="button ghost" aria-label=t.account_menu>
                                    <Icon glyph=Glyph::Account />
                                    <span class="wide-only">{me.name.clone()}</span>
                                </summary>
                                <div class="menu-body">
                                    <p class="menu-who">
                                        <b>{me.name}</b>
                                        <span class="muted">{me.email}</span>
                                        <span class="muted">{t.role(me.role)}</span>
                                    </p>
                                    <form method="post" action=SignOut::PATH>
                                        <button type="submit" class="button ghost block">
                                            <Icon glyph=Glyph::SignOut />
                                            <span>{t.sign_out}</span>
                                        </button>
                                    </form>
                                </div>
                            </details>
                        }
                    });
                    view! {
                        <div class="topbar-search">{search}</div>
                        <LiveChip />
                        <Switches />
                        {account}
                    }
                })}
            </Suspense>
        </header>
    }
}

/// Finds people by whatever they quoted; Ctrl-K or ⌘-K leads into it.
#[component]
fn Search() -> impl IntoView {
    let t = use_texts();
    let query = use_query_map();
    let here = use_location().pathname;
    let typed = move || {
        if here.get() == "/users" {
            query.with(|query| query.get("q")).unwrap_or_default()
        } else {
            String::new()
        }
    };
    let input = NodeRef::<leptos::html::Input>::new();
    let keys = window_event_listener(leptos::ev::keydown, move |event| {
        if (event.ctrl_key() || event.meta_key()) && event.key().eq_ignore_ascii_case("k") {
            event.prevent_default();
            if let Some(input) = input.get_untracked() {
                let _ = input.focus();
                input.select();
            }
        }
    });
    on_cleanup(move || keys.remove());
    view! {
        <QueryForm action="/users" class="search" role="search" label=t.search_label>
            <Icon glyph=Glyph::Search />
            <input
                node_ref=input
                type="search"
                name="q"
                id="search"
                autocomplete="off"
                maxlength="200"
                placeholder=t.search_hint
                aria-label=t.search_label
                value=typed
            />
            <kbd aria-hidden="true">"Ctrl K"</kbd>
        </QueryForm>
    }
}

/// Whether the figures on this page move by themselves.
#[component]
fn LiveChip() -> impl IntoView {
    let t = use_texts();
    let line = use_line().0;
    let (class, words) = (
        move || match line.get() {
            Line::Still => "live still",
            Line::Live => "live on",
            Line::Cut => "live cut",
        },
        move || match line.get() {
            Line::Still => "",
            Line::Live => t.live_on,
            Line::Cut => t.live_cut,
        },
    );
    view! {
        <span class=class role="status">
            <i class="live-dot"></i>
            <span>{words}</span>
        </span>
    }
}

/// Language and colours: plain forms that set a cookie and come back to the page, with or without script.
#[component]
pub fn Switches() -> impl IntoView {
    let t = use_texts();
    let prefs = expect_context::<Prefs>();
    let theme = RwSignal::new(prefs.theme);
    let (other, other_words) = t.other_language();
    let save = ServerAction::<SetTheme>::new();
    let next = move || match theme.get() {
        Theme::Auto => (Theme::Light, Glyph::Auto, t.theme_to_light),
        Theme::Light => (Theme::Dark, Glyph::Sun, t.theme_to_dark),
        Theme::Dark => (Theme::Auto, Glyph::Moon, t.theme_to_auto),
    };
    // With script the colours change at once, and only the cookie is sent.
    let change = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let (chosen, _, _) = next();
        theme.set(chosen);
        if let Some(html) = document().document_element() {
            let _ = html.set_attribute("data-theme", theme_name(chosen));
        }
        save.dispatch(SetTheme {
            theme: theme_name(chosen).to_owned(),
        });
    };
    view! {
        <form method="post" action=SetLang::PATH>
            <input type="hidden" name="lang" value=other.tag() />
            <button type="submit" class="button ghost language" lang=other.tag() aria-label=other_words title=other_words>
                <Icon glyph=Glyph::Globe />
                <span>{other.tag().to_uppercase()}</span>
            </button>
        </form>
        <form method="post" action=SetTheme::PATH on:submit=change>
            <input type="hidden" name="theme" value=move || theme_name(next().0) />
            <button type="submit" class="button ghost icon-only" aria-label=move || next().2 title=move || next().2>
                {move || {
                    let glyph = next().1;
                    view! { <Icon glyph /> }
                }}
            </button>
        </form>
    }
}
