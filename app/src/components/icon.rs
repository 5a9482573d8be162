//! The icons, drawn inline so that none has to be fetched.

use leptos::prelude::*;

/// One icon of the set: 24 × 24, strokes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyph {
    Overview,
    Users,
    Limits,
    Bots,
    Models,
    Audit,
    Search,
    Check,
    Warning,
    Stop,
    Play,
    Chat,
    Sun,
    Moon,
    Auto,
    Globe,
    Account,
    SignOut,
    Copy,
    Lock,
    Next,
    First,
    Plus,
    Send,
    Clock,
    Key,
    Info,
    Coin,
    Bolt,
    Queue,
    Eye,
    Filter,
    Earlier,
    Requests,
    Close,
    Download,
}

impl Glyph {
    const fn path(self) -> &'static str {
        match self {
            Self::Overview => "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
            Self::Users => {
                "M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2.5 20c.6-3.6 3.2-5.5 6.5-5.5s5.9 1.9 6.5 5.5M16 3.4a4 4 0 0 1 0 7.2M18 15c2 .8 3.2 2.5 3.5 5"
            }
            Self::Limits => "M4 18a9 9 0 1 1 16 0M12 15l4-5M12 16.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3z",
            Self::Bots => {
                "M6 8h12a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2v-8a2 2 0 0 1 2-2zM12 8V4M9 13v2M15 13v2M1.5 13v3M22.5 13v3"
            }
            Self::Models => "M12 3 3 7.5l9 4.5 9-4.5zM3 12l9 4.5 9-4.5M3 16.5 12 21l9-4.5",
            Self::Audit => {
                "M9 4h6v3H9zM9 5.5H6a1 1 0 0 0-1 1V20a1 1 0 0 0 1 1h12a1 1 0 0 0 1-1V6.5a1 1 0 0 0-1-1h-3M9 12h6M9 16h4"
            }
            Self::Search => "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16.2 16.2 21 21",
            Self::Check => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8 12.2l2.8 2.8L16 9.5",
            Self::Warning => "M12 3.5 2.5 20h19zM12 10v4.5M12 17.2v.1",
            Self::Stop => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM5.8 5.8l12.4 12.4",
            Self::Play => "M7 4.5v15l12-7.5z",
            Self::Chat => "M4 5h16v11H9.5L5 20v-4H4z",
            Self::Sun => {
                "M12 16.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM12 2v2M12 20v2M2 12h2M20 12h2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4"
            }
            Self::Moon => "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
            Self::Auto => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 3v18M12 7h6.5M12 11h8.8M12 15h8.3M12 19h4.5",
            Self::Globe => {
                "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM3 12h18M12 3c3 3 3.5 6 3.5 9s-.5 6-3.5 9c-3-3-3.5-6-3.5-9S9 6 12 3z"
            }
            Self::Account => "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5c.7-3.8 3.6-6 7.5-6s6.8 2.2 7.5 6",
            Self::SignOut => "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
            Self::Copy => "M9 9h11v11H9zM15 9V4H4v11h5",
            Self::Lock => "M5 11h14v9H5zM8 11V8a4 4 0 0 1 8 0v3M12 15v2",
            Self::Next => "M9 5l7 7-7 7",
            Self::Earlier => "M12 20V5M5.5 11.5 12 5l6.5 6.5",
            Self::First => "M17 5l-7 7 7 7M6 5v14",
            Self::Plus => "M12 5v14M5 12h14",
            Self::Send => "M4 12 20.5 4 15 20.5l-3.5-7zM11.5 13.5 20.5 4",
            Self::Clock => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3.5 2",
            Self::Key => "M8 16a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM12.5 11.5H21v4M17 11.5v3",
            Self::Info => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11v5.5M12 7.5v.1",
            Self::Coin => {
                "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM15 9c-.5-1.2-1.6-1.8-3-1.8-1.7 0-3 .9-3 2.3 0 3.4 6.2 1.5 6.2 5 0 1.5-1.4 2.3-3.2 2.3-1.6 0-2.8-.7-3.2-2M12 5.5v1.7M12 16.8v1.7"
            }
            Self::Bolt => "M13 3 5 13.5h6L10.5 21 19 10h-6.5z",
            Self::Queue => "M4 6h16M4 12h16M4 18h10",
            Self::Eye => {
                "M2 12c2.5-4.5 6-6.5 10-6.5s7.5 2 10 6.5c-2.5 4.5-6 6.5-10 6.5S4.5 16.5 2 12zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z"
            }
            Self::Requests => "M4 7h12M13 4l3 3-3 3M20 17H8M11 14l-3 3 3 3",
            Self::Close => "M6 6l12 12M18 6L6 18",
            Self::Download => "M12 4v11M7 11l5 5 5-5M5 20h14",
            Self::Filter => "M3 5h18l-7 8.5V19l-4 2v-7.5z",
        }
    }
}

/// An icon beside words; it carries no meaning of its own, so readers of the screen pass over it.
#[component]
pub fn Icon(glyph: Glyph) -> impl IntoView {
    view! {
        <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
            <path d=glyph.path() />
        </svg>
    }
}
