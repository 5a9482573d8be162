//! Follows a chat over server-sent events.

use domain::BotId;

use super::Messages;

/// Takes in what arrives until the page is left; the line's state shows in the top bar.
#[cfg(feature = "hydrate")]
pub fn follow(bot: BotId, messages: Messages) {
    use domain::views::PlaygroundMessage;
    use leptos::{
        prelude::*,
        wasm_bindgen::{JsCast, closure::Closure},
        web_sys::{EventSource, MessageEvent},
    };

    use crate::state::{Line, use_line};

    let line = use_line();
    Effect::new(move |_| {
        let Ok(source) = EventSource::new(&format!("/api/playground/{bot}/events")) else {
            line.set(Line::Cut);
            return;
        };
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let news = event
                .data()
                .as_string()
                .and_then(|data| serde_json::from_str::<Vec<PlaygroundMessage>>(&data).ok());
            if let Some(news) = news {
                line.set(Line::Live);
                let _ = messages.try_update(|all| all.extend(news.into_iter().map(|message| (message.id, message))));
            }
        });
        let on_open = Closure::<dyn FnMut()>::new(move || line.set(Line::Live));
        // The browser tries again by itself; until it succeeds the page says that it is cut off.
        let on_error = Closure::<dyn FnMut()>::new(move || line.set(Line::Cut));
        source.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        source.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        source.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        let held = StoredValue::new_local((source, on_message, on_open, on_error));
        on_cleanup(move || {
            let _ = held.try_with_value(|(source, ..)| {
                source.set_onmessage(None);
                source.set_onopen(None);
                source.set_onerror(None);
                source.close();
            });
            line.set(Line::Still);
        });
    });
}

#[cfg(not(feature = "hydrate"))]
pub fn follow(_: BotId, _: Messages) {}
