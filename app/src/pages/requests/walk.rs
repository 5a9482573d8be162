//! Going along the rows by the keyboard.

use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use uuid::Uuid;

use super::address::Shown;

/// Where a row is, for the focus.
pub(super) fn link_id(id: Uuid) -> String {
    format!("request-{id}")
}

/// The one `by` places further on; the first, or last, where none is the present one.
fn step(ids: &[Uuid], now: Option<Uuid>, forward: bool) -> Option<Uuid> {
    let place = now.and_then(|now| ids.iter().position(|id| *id == now));
    let next = match (place, forward) {
        (None, true) => 0,
        (None, false) => ids.len().checked_sub(1)?,
        (Some(place), true) => place + 1,
        (Some(place), false) => place.checked_sub(1)?,
    };
    ids.get(next).copied()
}

/// J and K and the arrows go along the rows, with the drawer when it is open; Escape closes that.
pub(super) fn walk(ids: Vec<Uuid>, shown: Shown, open: Memo<Option<Uuid>>) {
    let navigate = use_navigate();
    let keys = window_event_listener(leptos::ev::keydown, move |event| {
        if event.ctrl_key() || event.meta_key() || event.alt_key() || types() {
            return;
        }
        let forward = match event.key().as_str() {
            "j" | "J" | "ArrowDown" => true,
            "k" | "K" | "ArrowUp" => false,
            "Escape" => {
                if let Some(id) = open.get_untracked() {
                    event.prevent_default();
                    navigate(&shown.address(shown.query.after.as_deref(), None), Default::default());
                    focus(id);
                }
                return;
            }
            _ => return,
        };
        let drawn = open.get_untracked();
        let Some(next) = step(&ids, drawn.or_else(focused), forward) else {
            return;
        };
        event.prevent_default();
        focus(next);
        if drawn.is_some() {
            navigate(
                &shown.address(shown.query.after.as_deref(), Some(next)),
                Default::default(),
            );
        }
    });
    on_cleanup(move || keys.remove());
}

/// Somebody is typing into a field.
#[cfg(feature = "hydrate")]
fn types() -> bool {
    document()
        .active_element()
        .is_some_and(|element| matches!(element.tag_name().as_str(), "INPUT" | "TEXTAREA" | "SELECT"))
}

#[cfg(feature = "hydrate")]
fn focused() -> Option<Uuid> {
    document().active_element()?.id().strip_prefix("request-")?.parse().ok()
}

#[cfg(feature = "hydrate")]
fn focus(id: Uuid) {
    use leptos::{wasm_bindgen::JsCast, web_sys::HtmlElement};
    let link = document().get_element_by_id(&link_id(id));
    if let Some(link) = link.and_then(|link| link.dyn_into::<HtmlElement>().ok()) {
        let _ = link.focus();
    }
}

#[cfg(not(feature = "hydrate"))]
fn types() -> bool {
    false
}

#[cfg(not(feature = "hydrate"))]
fn focused() -> Option<Uuid> {
    None
}

#[cfg(not(feature = "hydrate"))]
fn focus(_: Uuid) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_begins_at_an_end_and_stops_at_the_other() {
        let ids = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(step(&ids, None, true), Some(ids[0]));
        assert_eq!(step(&ids, None, false), Some(ids[2]));
        assert_eq!(step(&ids, Some(ids[0]), true), Some(ids[1]));
        assert_eq!(step(&ids, Some(ids[2]), true), None);
        assert_eq!(step(&ids, Some(ids[0]), false), None);
        assert_eq!(step(&[], None, false), None);
    }
}
