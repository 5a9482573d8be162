//! One limit with what is used of it.

use domain::views::LimitBar;
use leptos::prelude::*;

use super::{Badge, Bar, Glyph, Time, TimeStyle, Tone};
use crate::i18n::{amount, fill, use_texts};

/// A row of `<ul class="limits">`: name, bar, the same in words, a badge past the threshold. What else can be done stands behind.
#[component]
pub fn LimitLine(
    limit: LimitBar,
    /// Whose it is, where that is not clear from the place.
    #[prop(into, optional)]
    owner: String,
    #[prop(optional)] children: Option<Children>,
) -> impl IntoView {
    let t = use_texts();
    let LimitBar {
        kind,
        limit,
        boosted_until,
        near,
        used,
        reserved,
        resets_at,
        ..
    } = limit;
    let show = move |value: i64| amount(kind, value);
    let bar = limit.and_then(|limit| {
        let used = used?;
        let left = (limit - used - reserved).max(0);
        let text = fill(t.limit_text, &[&show(used), &show(limit), &show(left)]);
        Some((percent(used, limit), percent(reserved, limit), left, text))
    });
    let used_shown = used.map(|used| view! { <b>{show(used)}</b> });
    let detail = match (&bar, limit) {
        (Some((_, _, left, _)), Some(limit)) => view! {
            <span>
                {used_shown}
                " "
                {fill(t.of_limit, &[&show(limit)])}
            </span>
            {(reserved > 0).then(|| view! { <span>{fill(t.limit_reserved, &[&show(reserved)])}</span> })}
            <span>{fill(t.limit_left, &[&show(*left)])}</span>
        }
        .into_any(),
        // A count that is not known is not zero.
        (None, Some(limit)) => view! { <span>{fill(t.limit_unknown, &[&show(limit)])}</span> }.into_any(),
        _ => view! {
            <span>{used_shown.map(|used| view! { {used} " · " })} {t.no_limit}</span>
        }
        .into_any(),
    };
    let style = match kind.period() {
        domain::Period::Minute => TimeStyle::Second,
        _ => TimeStyle::Minute,
    };
    view! {
        <li>
            <div class="limit-head">
                <span class="limit-name">
                    {owner}
                    {t.limit(kind)}
                    {near.then(|| view! { " " <Badge tone=Tone::Warn glyph=Glyph::Limits text=t.near_limit /> })}
                </span>
                {resets_at.map(|at| view! { <span class="muted">{t.resets}" "<Time at style /></span> })}
            </div>
            {bar.map(|(used, reserved, _, text)| view! { <Bar used_percent=used reserved_percent=reserved text /> })}
            <div class="limit-detail">
                {detail}
                {boosted_until.map(|at| view! { <span>{t.boosted_until} " " <Time at /></span> })}
                {children.map(|children| children())}
            </div>
        </li>
    }
}

/// How much of a limit a part of it is; of a limit of nothing everything is full.
pub fn percent(part: i64, limit: i64) -> i64 {
    if limit > 0 {
        part.saturating_mul(100) / limit
    } else {
        100
    }
}
