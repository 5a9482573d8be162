//! What a change would do, and the button that saves it.

use domain::{
    LimitKind, LimitOwner,
    views::limits::{HeavyUser, KindEffect, LimitChange, LimitChanges, LimitEffect, Reach},
};
use leptos::prelude::*;

use super::{api::SaveLimits, edit::Proposal, limit_words};
use crate::{
    Answer,
    components::{Badge, Bar, Button, Card, ErrorBox, Glyph, Look, Time, Tone, percent},
    i18n::{amount, fill, group, use_texts},
};

/// Of the proposal that was asked about; what has been typed since cannot be saved before it has been shown.
#[component]
pub(super) fn EffectCard(
    proposal: Proposal,
    effect: Answer<LimitEffect>,
    typed: RwSignal<Option<Proposal>>,
    save: ServerAction<SaveLimits>,
) -> impl IntoView {
    let t = use_texts();
    let effect = match effect {
        Ok(effect) => effect,
        Err(failure) => return view! { <ErrorBox error=failure.0 /> }.into_any(),
    };
    let LimitEffect { changes, kinds } = effect;
    if changes == LimitChanges::default() {
        return view! { <p class="muted">{t.effect_none}</p> }.into_any();
    }
    let owner = proposal.owner.clone();
    let rows = kinds
        .into_iter()
        .map(|kind| view! { <Kind kind owner=owner.clone() /> })
        .collect_view();
    // Only what would change travels, so nothing that somebody else has set meanwhile is undone.
    let fields = changes
        .limits
        .iter()
        .map(|change| {
            let value = change.kind.show_amount(change.after);
            view! { <input type="hidden" name=format!("amounts[{}]", change.kind) value=value /> }
        })
        .collect_view();
    let zone = changes
        .zone
        .clone()
        .map(|[_, zone]| view! { <input type="hidden" name="zone" value=zone /> });
    let soft = changes
        .soft_percent
        .map(|[_, soft]| view! { <input type="hidden" name="soft" value=soft.to_string() /> });
    let pending = save.pending();
    let held = Signal::derive(move || {
        let moved_on = typed.with(|typed| typed.as_ref().is_some_and(|typed| *typed != proposal));
        moved_on || pending.get()
    });
    view! {
        <Card title=t.effect_title id="effect" note=t.effect_note>
            <Changes changes=changes.clone() />
            <ul class="effects">{rows}</ul>
            <ActionForm action=save>
                <input type="hidden" name="owner" value=owner.to_string() />
                {fields}
                {zone}
                {soft}
                <Button look=Look::Main pending=held>
                    {t.save}
                </Button>
            </ActionForm>
        </Card>
    }
    .into_any()
}

/// Before → after, a line each.
#[component]
pub(super) fn Changes(changes: LimitChanges) -> impl IntoView {
    let t = use_texts();
    let line = |name: &'static str, [was, is]: [String; 2]| {
        view! {
            <li>
                {name}
                ": "
                <del>{was}</del>
                " → "
                <ins>{is}</ins>
            </li>
        }
    };
    let limits = changes
        .limits
        .into_iter()
        .map(|LimitChange { kind, before, after }| {
            line(
                t.limit(kind),
                [before, after].map(|amount| limit_words(t, kind, amount)),
            )
        })
        .collect_view();
    let zone = changes.zone.map(|zones| line(t.plan_zone, zones));
    let soft = changes
        .soft_percent
        .map(|soft| line(t.plan_soft, soft.map(|percent| percent.to_string())));
    view! { <ul class="changes">{limits} {zone} {soft}</ul> }
}

/// Whom one limit would concern.
#[component]
fn Kind(kind: KindEffect, owner: LimitOwner) -> impl IntoView {
    let t = use_texts();
    let KindEffect {
        change,
        counts_from_now,
        reach,
    } = kind;
    let stops = reach.used_up_after;
    let badge = if change.after == Some(0) {
        Some((Tone::Bad, t.effect_zero))
    } else if stops {
        Some((Tone::Warn, t.effect_stops))
    } else if change.after.is_none() {
        Some((Tone::Quiet, t.no_limit))
    } else {
        None
    };
    let (stopped, before) = (group(reach.stopped_after), group(reach.stopped_before));
    let people = [&stopped, t.users(reach.stopped_after), &group(reach.people), &before];
    let words = match owner {
        _ if reach.shared_used.is_some() => fill(t.effect_shared, &[&group(reach.people), t.users(reach.people)]),
        LimitOwner::User(_) if reach.minutes_since.is_some() && reach.stopped_after > 0 => {
            t.effect_user_busier.to_owned()
        }
        LimitOwner::User(_) if reach.minutes_since.is_some() => t.effect_user_slower.to_owned(),
        LimitOwner::User(_) if reach.stopped_after > 0 => t.effect_user_stopped.to_owned(),
        LimitOwner::User(_) => t.effect_user_free.to_owned(),
        _ if reach.minutes_since.is_some() => fill(t.effect_minutes, &people),
        _ => fill(t.effect_people, &people),
    };
    let looked = reach
        .minutes_since
        .map(|since| view! { <p class="hint">{t.effect_minutes_since}" "<Time at=since /></p> });
    let resets_at = reach.resets_at.filter(|_| stops);
    view! {
        <li>
            <div class="limit-head">
                <span class="limit-name">
                    {t.limit(change.kind)}
                    {badge.map(|(tone, text)| view! { " " <Badge tone glyph=Glyph::Limits text /> })}
                </span>
                {resets_at.map(|at| view! { <span class="muted">{t.resets}" "<Time at /></span> })}
            </div>
            <p>{words}</p>
            {looked}
            {counts_from_now.then(|| view! { <p class="hint">{t.effect_from_now}</p> })}
            <Use kind=change.kind limit=change.after reach />
        </li>
    }
}

/// Use against the new limit: of all together where it is shared, and of those who use most.
#[component]
fn Use(kind: LimitKind, limit: Option<i64>, reach: Reach) -> impl IntoView {
    let t = use_texts();
    let shared = reach.shared_used;
    let together = shared.map(|used| view! { <UseRow kind name=t.effect_together.to_owned() href=None used limit /> });
    let heaviest = reach
        .heaviest
        .into_iter()
        .filter(|user| user.used > 0)
        .map(
            |HeavyUser {
                 id,
                 name,
                 used,
                 limit: own,
             }| {
                // A share of what all may use, or what this user may.
                let limit = if shared.is_some() { limit } else { own };
                view! { <UseRow kind name href=Some(format!("/users/{id}")) used limit /> }
            },
        )
        .collect_view();
    view! {
        <ul class="use">
            {together}
            {heaviest}
        </ul>
    }
}

#[component]
fn UseRow(kind: LimitKind, name: String, href: Option<String>, used: i64, limit: Option<i64>) -> impl IntoView {
    let t = use_texts();
    let name = if name.trim().is_empty() {
        t.nameless.to_owned()
    } else {
        name
    };
    let words = match limit {
        Some(limit) => fill(t.used_of, &[&amount(kind, used), &amount(kind, limit)]),
        None => amount(kind, used),
    };
    let bar = limit.map(|limit| view! { <Bar used_percent=percent(used, limit) text=words.clone() /> });
    let name = match href {
        Some(href) => view! { <a href=href>{name}</a> }.into_any(),
        None => view! { <span>{name}</span> }.into_any(),
    };
    view! {
        <li>
            <div class="use-head">{name} <span class="muted number">{words}</span></div>
            {bar}
        </li>
    }
}
