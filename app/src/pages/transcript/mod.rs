//! A private conversation as it was, with how each answer came to be. Opening it is recorded.

pub mod api;

use domain::{
    ConversationId,
    views::{Author, Made, Transcript, TranscriptMessage},
};
use leptos::prelude::*;
use leptos_router::{
    hooks::{use_params_map, use_query_map},
    location::Url,
};

use self::api::get_transcript;
use super::users::name_or;
use crate::{
    components::{Empty, Glyph, Icon, Notice, PageHead, Pager, Skeleton, Time, TimeStyle, Tone, page},
    i18n::{Texts, duration, fill, group, money, use_texts},
    state::not_found,
};

#[component]
pub fn TranscriptPage() -> impl IntoView {
    let params = use_params_map();
    let query = use_query_map();
    let older = Memo::new(move |_| query.with(|query| query.get("older")).filter(|key| !key.is_empty()));
    let transcript = Resource::new(
        move || {
            let id = params
                .with(|params| params.get("id"))
                .and_then(|id| id.parse::<ConversationId>().ok());
            (id, older.get())
        },
        |(id, older)| async move { get_transcript(id.ok_or_else(not_found)?, older).await },
    );
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let transcript = transcript.await;
                let is_older = older.get_untracked().is_some();
                page(transcript, move |transcript| view! { <Chat transcript is_older /> }.into_any())
            })}
        </Transition>
    }
}

#[component]
fn Chat(transcript: Transcript, is_older: bool) -> impl IntoView {
    let t = use_texts();
    let here = format!("/conversations/{}", transcript.conversation.id);
    let older = transcript
        .older
        .map(|key| format!("{here}?older={}", Url::escape(&key)));
    let conversation = transcript.conversation;
    let is_group = transcript.is_group;
    let person = name_or(transcript.user, t.nameless);
    let (title, lead) = if is_group {
        (fill(t.transcript_in, &[&conversation.chat]), conversation.bot.clone())
    } else {
        let lead = format!("{} · {}", conversation.bot, conversation.chat);
        (fill(t.transcript_with, &[&person]), lead)
    };
    let bot = conversation.bot;
    let messages = if transcript.messages.is_empty() {
        view! { <Empty glyph=Glyph::Chat title=t.transcript_empty /> }.into_any()
    } else {
        let rows = transcript
            .messages
            .into_iter()
            .map(|mut message| {
                let speaker = message.speaker.take();
                let page = speaker
                    .as_ref()
                    .filter(|_| is_group)
                    .map(|speaker| format!("/users/{}", speaker.id));
                let who = match (message.author, speaker) {
                    (Author::Bot, _) => bot.clone(),
                    (Author::User, Some(speaker)) => name_or(speaker.name, t.nameless),
                    (Author::User, None) if is_group => t.transcript_somebody.to_owned(),
                    (Author::User, None) => person.clone(),
                };
                view! { <Message message who page /> }
            })
            .collect_view();
        view! { <ol class="chat" aria-label=t.transcript_title>{rows}</ol> }.into_any()
    };
    view! {
        <PageHead title trail=vec![(t.nav_users, "/users")] lead>
            {(!is_group)
                .then(|| {
                    view! {
                        <a class="button" href=format!("/users/{}", transcript.user_id)>
                            <Icon glyph=Glyph::Account />
                            <span>{t.to_user}</span>
                        </a>
                    }
                })}
            <a class="button" href=format!("/requests?conversation={}", conversation.id)>
                <Icon glyph=Glyph::Requests />
                <span>{t.nav_requests}</span>
            </a>
        </PageHead>
        <Notice tone=Tone::Quiet glyph=Glyph::Eye>
            <p>{t.reading_recorded}</p>
        </Notice>
        <div class="chat-wrap">
            <Pager first=is_older.then_some(here) next=older next_words=t.older_messages />
            {messages}
        </div>
    }
}

#[component]
fn Message(
    message: TranscriptMessage,
    who: String,
    /// Of whoever wrote it, where they are one of several.
    page: Option<String>,
) -> impl IntoView {
    let t = use_texts();
    let class = match message.author {
        Author::User => "bubble-row from-user",
        Author::Bot => "bubble-row from-bot",
    };
    view! {
        <li class=class>
            <article class="bubble">
                <header class="bubble-head">
                    {match page {
                        Some(href) => view! { <a href=href><b>{who}</b></a> }.into_any(),
                        None => view! { <b>{who}</b> }.into_any(),
                    }}
                    <span class="muted">
                        <Time at=message.at style=TimeStyle::Second />
                    </span>
                </header>
                {(!message.text.is_empty()).then(|| view! { <div class="bubble-text">{message.text}</div> })}
                {message
                    .error
                    .map(|error| {
                        let words = t.error_by_name(&error.code);
                        view! {
                            <div class="bubble-error">
                                <Icon glyph=Glyph::Warning />
                                <div>
                                    <p>
                                        <code>{error.code}</code>
                                        {words.map(|words| format!(" · {words}"))}
                                    </p>
                                    {error
                                        .cause
                                        .map(|cause| {
                                            view! { <p class="muted">{t.cause}": "<code class="cause">{cause}</code></p> }
                                        })}
                                </div>
                            </div>
                        }
                    })}
                {message.made.map(|made| view! { <HowMade made /> })}
            </article>
        </li>
    }
}

#[component]
fn HowMade(made: Made) -> impl IntoView {
    let t = use_texts();
    let tokens = made.prompt_tokens.saturating_add(made.completion_tokens);
    let brief = format!(
        "{} · {} {} · {} · {}",
        made.model,
        group(tokens),
        t.tokens(tokens),
        money(made.cost),
        duration(t, made.total_ms)
    );
    let row = |name: &'static str, value: String| {
        view! {
            <div>
                <dt>{name}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    let tries = (made.attempts > 1).then(|| format!(" · {}", fill(t.tries, &[&made.attempts.to_string()])));
    view! {
        <details class="made">
            <summary>{brief}{tries}</summary>
            <dl class="facts">
                {row(t.model, made.model)} {row(t.prompt_tokens, group(made.prompt_tokens))}
                {row(t.completion_tokens, group(made.completion_tokens))} {row(t.cost, money(made.cost))}
                {row(t.first_token, made.first_token_ms.map_or_else(|| "—".to_owned(), |ms| duration(t, ms)))}
                {row(t.total_time, duration(t, made.total_ms))} {row(t.finish, finish(t, made.finish))}
                {row(t.attempts, made.attempts.to_string())}
            </dl>
        </details>
    }
}

fn finish(t: &Texts, finish: String) -> String {
    match finish.as_str() {
        "stop" => t.finish_stop.to_owned(),
        "length" => t.finish_length.to_owned(),
        "stopped" => t.finish_stopped.to_owned(),
        "cut" => t.finish_cut.to_owned(),
        "failed" => t.finish_failed.to_owned(),
        "content_filter" => t.finish_filtered.to_owned(),
        _ => finish,
    }
}
