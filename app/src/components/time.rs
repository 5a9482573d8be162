//! Points in time: UTC from the server, the viewer's own zone as soon as the page is awake.

use chrono::{DateTime, Datelike, Timelike, Utc};
use leptos::prelude::*;

use crate::i18n::{duration, fill, use_texts};

/// How much of a time is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeStyle {
    /// `2026-07-01 12:34`
    #[default]
    Minute,
    /// `2026-07-01 12:34:56`, where order matters to the second.
    Second,
    /// `12:34`, where the day is clear.
    Clock,
}

/// A time with its exact value on hover. The server cannot know the viewer's zone, so the text is UTC and says so until the
/// page has woken up; changing it in an effect keeps both sides of hydration alike.
#[component]
pub fn Time(at: DateTime<Utc>, #[prop(optional)] style: TimeStyle) -> impl IntoView {
    let exact = exact(at);
    let local = RwSignal::new(None::<String>);
    Effect::new(move |_| local.set(Some(in_zone(at, style))));
    let on_server = format!("{} UTC", write(&parts(at), style));
    view! {
        <time datetime=exact.clone() title=exact>
            {move || local.get().unwrap_or_else(|| on_server.clone())}
        </time>
    }
}

/// How long ago something was, as the server reckoned; the exact time on hover.
#[component]
pub fn Ago(at: DateTime<Utc>, now: DateTime<Utc>) -> impl IntoView {
    let t = use_texts();
    let exact = exact(at);
    let words = fill(t.ago, &[&duration(t, (now - at).num_milliseconds().max(0))]);
    view! {
        <time datetime=exact.clone() title=exact>
            {words}
        </time>
    }
}

/// `2026-07-01T12:34:56Z`
pub fn exact(at: DateTime<Utc>) -> String {
    let [year, month, day, hour, minute, second] = parts(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn parts(at: DateTime<Utc>) -> [u32; 6] {
    let year = u32::try_from(at.year()).unwrap_or(0);
    [year, at.month(), at.day(), at.hour(), at.minute(), at.second()]
}

fn write([year, month, day, hour, minute, second]: &[u32; 6], style: TimeStyle) -> String {
    match style {
        TimeStyle::Minute => format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}"),
        TimeStyle::Second => format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"),
        TimeStyle::Clock => format!("{hour:02}:{minute:02}"),
    }
}

/// As a field for a date and a time takes it, in the viewer's zone.
pub(super) fn local(at: DateTime<Utc>) -> String {
    let here = here(at);
    let [year, month, day, hour, minute, second] = here;
    let seconds = if second == 0 {
        String::new()
    } else {
        format!(":{second:02}")
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}{seconds}")
}

fn in_zone(at: DateTime<Utc>, style: TimeStyle) -> String {
    write(&here(at), style)
}

#[cfg(feature = "hydrate")]
fn here(at: DateTime<Utc>) -> [u32; 6] {
    use leptos::web_sys::js_sys::Date;
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970 fit a double for 285 000 years"
    )]
    let date = Date::new(&(at.timestamp_millis() as f64).into());
    [
        date.get_full_year(),
        date.get_month() + 1,
        date.get_date(),
        date.get_hours(),
        date.get_minutes(),
        date.get_seconds(),
    ]
}

#[cfg(not(feature = "hydrate"))]
fn here(at: DateTime<Utc>) -> [u32; 6] {
    parts(at)
}
