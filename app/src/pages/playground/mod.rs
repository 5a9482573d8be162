//! A chat with a bot, through the very pipeline that Telegram's messages go. Without script it is a form and a page to reload.

pub mod api;
mod stream;

use std::collections::BTreeMap;

use domain::{
    BotId,
    views::{Author, Playground, PlaygroundMessage},
};
use leptos::{
    html::{Div, Textarea},
    prelude::*,
};
use leptos_router::hooks::use_params_map;

use self::api::{SendToPlayground, open_playground};
use crate::{
    components::{Badge, FormFailure, Glyph, Icon, PageHead, Rich, Skeleton, Time, TimeStyle, Tone, page},
    i18n::use_texts,
    state::{failure, not_found},
};

#[component]
pub fn PlaygroundPage() -> impl IntoView {
    let params = use_params_map();
    let bot = Memo::new(move |_| {
        params
            .with(|params| params.get("id"))
            .and_then(|id| id.parse::<BotId>().ok())
    });
    let playground = Resource::new(
        move || bot.get(),
        |bot| async move { open_playground(bot.ok_or_else(not_found)?).await },
    );
    let send = ServerAction::<SendToPlayground>::new();
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                page(playground.await, move |playground| view! { <Talk playground send /> }.into_any())
            })}
        </Transition>
    }
}

/// The chat by message id: an answer that grows replaces itself.
type Messages = RwSignal<BTreeMap<i64, PlaygroundMessage>>;

/// What the suggestions send.
const SUGGESTIONS: [&str; 4] = ["/help", "/usage", "/model", "/new"];

#[component]
fn Talk(playground: Playground, send: ServerAction<SendToPlayground>) -> impl IntoView {
    let t = use_texts();
    let Playground {
        bot,
        bot_name,
        model,
        demo,
        user,
        messages,
    } = playground;
    let messages: Messages = RwSignal::new(messages.into_iter().map(|message| (message.id, message)).collect());
    stream::follow(bot, messages);
    let log = NodeRef::<Div>::new();
    keep_at_the_end(log, messages);
    let waits = move || {
        messages.with(|all| {
            all.last_key_value()
                .is_some_and(|(_, last)| last.author == Author::User)
        })
    };
    let is_empty = move || messages.with(BTreeMap::is_empty);
    let all = move || messages.get().into_values().collect::<Vec<_>>();
    let name = bot_name.clone();
    view! {
        <PageHead title=bot_name trail=vec![(t.nav_bots, "/bots")]>
            {if demo {
                view! { <Badge tone=Tone::Warn glyph=Glyph::Info text=t.demo_badge /> }.into_any()
            } else {
                view! { <Badge tone=Tone::Accent glyph=Glyph::Bolt text=model.clone() /> }.into_any()
            }}
            {user
                .map(|user| {
                    view! {
                        <a class="button" href=format!("/users/{user}")>
                            <Icon glyph=Glyph::Account />
                            <span>{t.playground_user}</span>
                        </a>
                    }
                })}
        </PageHead>
        <section class="talk" aria-label=t.playground>
            <p class="talk-note muted">{if demo { t.demo_note } else { t.playground_note }}</p>
            <div class="talk-log" node_ref=log role="log" aria-label=t.talk_log tabindex="0">
                <Show when=is_empty>
                    <div class="empty">
                        <Icon glyph=Glyph::Chat />
                        <p class="empty-title">{t.talk_empty}</p>
                        <p class="muted">{t.talk_empty_hint}</p>
                    </div>
                </Show>
                <For
                    each=all
                    key=|message| (message.id, message.complete, message.body.text.len())
                    children=move |message| {
                        let who = match message.author {
                            Author::User => t.you.to_owned(),
                            Author::Bot => name.clone(),
                        };
                        view! { <Said message who /> }
                    }
                />
                <Show when=waits>
                    <p class="typing needs-script" role="status">
                        <i></i>
                        <i></i>
                        <i></i>
                        <span class="visually-hidden">{t.typing}</span>
                    </p>
                </Show>
            </div>
            <p class="script-missing muted">
                {t.talk_reload}" "<a href=format!("/bots/{bot}/playground")>{t.reload}</a>
            </p>
            <div class="suggestions">
                {SUGGESTIONS
                    .into_iter()
                    .map(|text| {
                        view! {
                            <ActionForm action=send>
                                <input type="hidden" name="bot" value=bot.to_string() />
                                <input type="hidden" name="text" value=text />
                                <button type="submit" class="button small">
                                    {text}
                                </button>
                            </ActionForm>
                        }
                    })
                    .collect_view()}
            </div>
            <FormFailure error=failure(send) />
            <Composer bot send />
        </section>
    }
}

#[component]
fn Said(message: PlaygroundMessage, who: String) -> impl IntoView {
    let class = match (message.author, message.complete) {
        (Author::User, _) => "bubble-row from-me",
        (Author::Bot, true) => "bubble-row from-bot",
        (Author::Bot, false) => "bubble-row from-bot writing",
    };
    view! {
        <div class=class>
            <article class="bubble">
                <header class="bubble-head">
                    <b>{who}</b>
                    <span class="muted">
                        <Time at=message.at style=TimeStyle::Clock />
                    </span>
                </header>
                <div class="bubble-text">
                    <Rich text=message.body />
                </div>
            </article>
        </div>
    }
}

/// Enter sends, Shift-Enter breaks the line. The text stays until it was taken.
#[component]
fn Composer(bot: BotId, send: ServerAction<SendToPlayground>) -> impl IntoView {
    let t = use_texts();
    let input = NodeRef::<Textarea>::new();
    let pending = send.pending();
    Effect::new(move |_| {
        let taken = send.value().with(|value| matches!(value, Some(Ok(()))));
        if let (true, Some(input)) = (taken, input.get_untracked()) {
            input.set_value("");
            let _ = input.focus();
        }
    });
    let keys = move |event: leptos::ev::KeyboardEvent| {
        if event.key() == "Enter" && !event.shift_key() && !event.is_composing() {
            event.prevent_default();
            if let Some(form) = input.get_untracked().and_then(|input| input.form()) {
                let _ = form.request_submit();
            }
        }
    };
    view! {
        <ActionForm action=send attr:class="composer">
            <input type="hidden" name="bot" value=bot.to_string() />
            <textarea
                node_ref=input
                name="text"
                rows="2"
                maxlength="20000"
                required=true
                aria-label=t.talk_input
                placeholder=t.talk_placeholder
                on:keydown=keys
            ></textarea>
            <button type="submit" class="button main icon-only" aria-label=t.send title=t.send disabled=move || pending.get()>
                <Icon glyph=Glyph::Send />
            </button>
        </ActionForm>
    }
}

/// Scrolls to what is new, unless the reader has scrolled away from the end.
fn keep_at_the_end(log: NodeRef<Div>, messages: Messages) {
    Effect::new(move |before: Option<usize>| {
        let count = messages.with(BTreeMap::len);
        let Some(log) = log.get() else {
            return count;
        };
        let from_end = log.scroll_height() - log.scroll_top() - log.client_height();
        if from_end < 160 || before.is_none_or(|before| before != count) {
            // After the new text has been laid out.
            request_animation_frame(move || log.set_scroll_top(log.scroll_height()));
        }
        count
    });
}
