//! A field for a point in time.

use domain::Moment;
use leptos::{html::Input, prelude::*};

use super::time::local;
use crate::i18n::use_texts;

/// A date and a time that a person picks in their own zone; the form sends them in UTC, so that the address means the same to whoever
/// gets it. Without script nobody knows the zone: then the field itself is in UTC, and says so.
#[component]
pub fn MomentField(
    label: &'static str,
    name: &'static str,
    /// Unique on the page.
    id: &'static str,
    value: Option<Moment>,
) -> impl IntoView {
    let t = use_texts();
    let typed = value.map(|moment| moment.to_string().trim_end_matches('Z').to_owned());
    let typed = typed.unwrap_or_default();
    let field = NodeRef::<Input>::new();
    let awake = RwSignal::new(false);
    let sent = RwSignal::new(value.map(|moment| moment.to_string()).unwrap_or_default());
    // A field that is there already when the page changes keeps what was typed, so it is told what to hold.
    let was_awake = is_awake();
    let before = typed.clone();
    Effect::new(move |_| {
        let Some(input) = field.get() else { return };
        // What was typed before the page woke up stays as it stands there.
        if was_awake || input.value() == before {
            input.set_value(&value.map(|moment| local(moment.0)).unwrap_or_default());
        } else {
            sent.set(utc(&input.value()));
        }
        awake.set(true);
    });
    view! {
        <div class="field moment">
            <label for=id>{label}{move || (!awake.get()).then(|| format!(", {}", t.time_utc))}</label>
            <input
                node_ref=field
                id=id
                type="datetime-local"
                step="any"
                name=move || (!awake.get()).then_some(name)
                value=typed
                on:input=move |event| sent.set(utc(&event_target_value(&event)))
            />
            <input type="hidden" name=name value=move || sent.get() disabled=move || !awake.get() />
        </div>
    }
}

/// This field is made by a page that the script has taken over, and not by the server.
#[cfg(feature = "hydrate")]
fn is_awake() -> bool {
    document()
        .document_element()
        .is_some_and(|html| html.has_attribute("data-awake"))
}

#[cfg(not(feature = "hydrate"))]
fn is_awake() -> bool {
    false
}

/// What a field of this browser's zone holds, as the address says it. What is no time is left for the server to refuse.
#[cfg(feature = "hydrate")]
fn utc(typed: &str) -> String {
    use leptos::web_sys::js_sys::Date;
    let date = Date::new(&typed.into());
    if date.get_time().is_nan() {
        return typed.to_owned();
    }
    let text = String::from(date.to_iso_string());
    text.parse::<Moment>().map_or(text, |moment| moment.to_string())
}

#[cfg(not(feature = "hydrate"))]
fn utc(typed: &str) -> String {
    typed.to_owned()
}
