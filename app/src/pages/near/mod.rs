//! Which questions to a bot were like which, and from which likeness on one gets the other's answer. Opening it is recorded.

pub mod api;

use domain::{
    BotId, ComparedBy, Permission, Threshold,
    views::similar::{LookRow, NearBoard},
};
use leptos::prelude::*;
use leptos_router::hooks::{use_params_map, use_query_map};

use self::api::{SetBotThreshold, get_near_board};
use super::users::name_or;
use crate::{
    components::{
        Badge, Button, Card, Empty, Field, FormFailure, Glyph, Look, Notice, PageHead, QueryForm, Skeleton, Time,
        TimeStyle, Tone, page,
    },
    i18n::{Texts, fill, use_texts},
    state::{failure, not_found, successes, use_session},
};

#[component]
pub fn NearPage() -> impl IntoView {
    let session = use_session();
    let (params, query) = (use_params_map(), use_query_map());
    // What the address says wrongly counts as not said.
    let tried = Memo::new(move |_| query.with(|query| query.get("from")?.parse::<Threshold>().ok()));
    let set = ServerAction::<SetBotThreshold>::new();
    let saved = successes(set);
    let board = Resource::new(
        move || {
            let id = params
                .with(|params| params.get("id"))
                .and_then(|id| id.parse::<BotId>().ok());
            (id, saved.get())
        },
        |(id, _)| async move { get_near_board(id.ok_or_else(not_found)?).await },
    );
    view! {
        <Transition fallback=|| view! { <Skeleton rows=8 /> }>
            {move || Suspend::new(async move {
                let writes = session.may().await.permits(Permission::WriteBots);
                page(board.await, move |board| view! { <Board board tried writes set /> }.into_any())
            })}
        </Transition>
    }
}

#[component]
fn Board(
    board: NearBoard,
    tried: Memo<Option<Threshold>>,
    writes: bool,
    set: ServerAction<SetBotThreshold>,
) -> impl IntoView {
    let t = use_texts();
    let title = fill(t.near_title, &[&board.bot_name]);
    let rows = board.looks.clone();
    let compared_by = match board.compared_by {
        ComparedBy::Database => t.near_by_database,
        ComparedBy::Process => t.near_by_process,
    };
    let off = board.cache.similar_by.is_none().then(|| {
        view! {
            <Notice tone=Tone::Warn glyph=Glyph::Info>
                <p>{t.near_off}</p>
            </Notice>
        }
    });
    let list = if rows.is_empty() {
        view! { <Empty glyph=Glyph::Chat title=t.near_empty hint=t.near_empty_hint /> }.into_any()
    } else {
        let in_force = board.cache.similar_from;
        let rows = rows
            .into_iter()
            .map(|row| view! { <Row row tried in_force /> })
            .collect_view();
        view! {
            <div class="table-card table-scroll">
                <table class="table cards-when-narrow near">
                    <caption class="visually-hidden">{title.clone()}</caption>
                    <thead>
                        <tr>
                            <th scope="col">{t.near_at}</th>
                            <th scope="col">{t.near_who}</th>
                            <th scope="col">{t.near_question}</th>
                            <th scope="col">{t.near_nearest}</th>
                            <th scope="col" class="number">{t.near_likeness}</th>
                            <th scope="col">{t.near_came}</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        }
        .into_any()
    };
    view! {
        <PageHead title trail=vec![(t.nav_bots, "/bots")] lead=t.near_lead />
        <Notice tone=Tone::Quiet glyph=Glyph::Eye>
            <p>{t.near_recorded}</p>
        </Notice>
        {off}
        <Tuning board tried writes set />
        {list}
        <p class="muted">{compared_by}</p>
    }
}

/// How many of the listed questions a threshold takes, before it is set.
#[component]
fn Tuning(
    board: NearBoard,
    tried: Memo<Option<Threshold>>,
    writes: bool,
    set: ServerAction<SetBotThreshold>,
) -> impl IntoView {
    let t = use_texts();
    let (id, in_force) = (board.bot, board.cache.similar_from);
    let here = format!("/bots/{id}/near");
    let total = board.looks.len().to_string();
    let said = move |words: &'static str, threshold: Threshold| {
        let hits = board.hits_from(threshold).to_string();
        fill(words, &[&shown(t, &threshold.to_string()), &hits, &total])
    };
    let effect = {
        let said = said.clone();
        move || {
            let trial = tried.get().filter(|trial| *trial != in_force);
            trial.map(|trial| {
                let set_it = writes.then(|| {
                    view! {
                        <ActionForm action=set>
                            <input type="hidden" name="id" value=id.to_string() />
                            <input type="hidden" name="similar_from" value=trial.to_string() />
                            <Button look=Look::Main pending=set.pending()>
                                {fill(t.near_set, &[&shown(t, &trial.to_string())])}
                            </Button>
                        </ActionForm>
                    }
                });
                view! {
                    <p>{said(t.near_would, trial)}</p>
                    {set_it}
                }
            })
        }
    };
    let typed = tried.get_untracked().unwrap_or(in_force);
    view! {
        <Card title=t.near_threshold id="threshold">
            <div class="stack">
                <p>{said(t.near_does, in_force)}</p>
                <QueryForm action=here class="inline-form" label=t.near_threshold>
                    <Field
                        label=t.near_try
                        name="from"
                        id="from"
                        value=shown(t, &typed.to_string())
                        inputmode="decimal"
                        autocomplete="off"
                        max_length=5
                        required=true
                    />
                    <Button glyph=Glyph::Filter>{t.near_show}</Button>
                </QueryForm>
                <div class="stack" aria-live="polite">{effect}</div>
                <FormFailure error=failure(set) />
            </div>
        </Card>
    }
}

#[component]
fn Row(row: LookRow, tried: Memo<Option<Threshold>>, in_force: Threshold) -> impl IntoView {
    let t = use_texts();
    let likeness = row.likeness;
    // Only what another threshold would change is said.
    let would = move || {
        let trial = tried.get().unwrap_or(in_force).likeness();
        match (row.hit, likeness >= trial) {
            (false, true) => Some(view! { <Badge tone=Tone::Accent glyph=Glyph::Plus text=t.near_would_hit /> }),
            (true, false) => Some(view! { <Badge tone=Tone::Warn glyph=Glyph::Warning text=t.near_would_miss /> }),
            _ => None,
        }
    };
    let came = if row.hit {
        view! { <Badge tone=Tone::Good glyph=Glyph::Bolt text=t.near_hit /> }
    } else {
        view! { <Badge tone=Tone::Quiet glyph=Glyph::Info text=t.near_miss /> }
    };
    let person = name_or(row.user.name, t.nameless);
    view! {
        <tr>
            <td data-label=t.near_at class="number">
                <Time at=row.at style=TimeStyle::Second />
            </td>
            <td data-label=t.near_who>
                <a href=format!("/users/{}", row.user.id)>{person}</a>
            </td>
            <td data-label=t.near_question class="near-words">{row.question}</td>
            <td data-label=t.near_nearest class="near-words">{row.near_question}</td>
            <td data-label=t.near_likeness class="number">{shown(t, &likeness.to_string())}</td>
            <td data-label=t.near_came>
                <span class="near-came">{came} {would}</span>
            </td>
        </tr>
    }
}

/// With the language's decimal point.
fn shown(t: &Texts, number: &str) -> String {
    number.replace('.', t.decimal_point)
}
