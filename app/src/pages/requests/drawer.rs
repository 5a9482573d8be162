//! One call with everything that is known of it.

use domain::{
    Money,
    views::requests::{BilledAt, RequestQuery, RequestRow, TryRow},
};
use leptos::prelude::*;

use super::{address::Shown, badge, cache_words, columns::answered_with, finish_words, way, who};
use crate::{
    Answer,
    components::{Copy, ErrorBox, Glyph, Icon, Time, TimeStyle},
    i18n::{Texts, dollars, duration, fill, group, money, use_texts},
};

/// Beside the list where there is room, over it where there is none. A plain link closes it, so it does so without script, too.
#[component]
pub(super) fn Drawer(request: Answer<Option<RequestRow>>, shown: Shown) -> impl IntoView {
    let t = use_texts();
    let close = shown.address(shown.query.after.as_deref(), None);
    let content = match request {
        Ok(Some(row)) => view! { <Details row shown /> }.into_any(),
        Ok(None) => view! { <p class="muted">{t.request_none_here}</p> }.into_any(),
        Err(failure) => view! { <ErrorBox error=failure.0 /> }.into_any(),
    };
    view! {
        <aside class="drawer" aria-labelledby="drawer-title">
            <header class="drawer-head">
                <h2 id="drawer-title">{t.request}</h2>
                <a class="button ghost icon-only" href=close aria-label=t.request_close title=t.request_close>
                    <Icon glyph=Glyph::Close />
                </a>
            </header>
            {content}
        </aside>
    }
}

#[component]
fn Details(row: RequestRow, shown: Shown) -> impl IntoView {
    let t = use_texts();
    let fact = |name: &'static str, value: AnyView| {
        view! {
            <div>
                <dt>{name}</dt>
                <dd>{value}</dd>
            </div>
        }
        .into_any()
    };
    let mut facts = vec![
        fact(
            t.request_at,
            view! { <Time at=row.at style=TimeStyle::Second /> }.into_any(),
        ),
        fact(t.request_who, who(t, &row)),
    ];
    if let Some(bot) = row.bot.clone() {
        facts.push(fact(t.request_bot, bot.name.into_any()));
    }
    if let Some(id) = row.conversation {
        let link = view! { <a href=format!("/conversations/{id}")>{t.job_conversation}</a> };
        facts.push(fact(t.request_conversation, link.into_any()));
    }
    facts.extend([
        fact(
            t.request_asked_as,
            view! { <code>{or_dash(&[&row.alias])}</code> }.into_any(),
        ),
        fact(t.request_provider, or_dash(&[&row.provider, &row.model]).into_any()),
        fact(t.request_tokens, tokens(t, &row).into_any()),
    ]);
    if let Some(images) = row.images.filter(|images| *images > 0) {
        facts.push(fact(t.request_images, group(images).into_any()));
    }
    facts.push(fact(t.request_cost, money(row.cost).into_any()));
    if let Some(prices) = billed_at(t, &row.billed_at) {
        facts.push(fact(t.request_prices, prices.into_any()));
    }
    if let Some(ms) = row.first_token_ms {
        facts.push(fact(t.request_first, duration(t, ms).into_any()));
    }
    facts.push(fact(t.request_total, duration(t, row.total_ms).into_any()));
    if row.user.is_some() {
        facts.push(fact(t.request_felt, duration(t, row.felt_ms).into_any()));
    }
    facts.push(fact(t.request_result, badge(t, &row)));
    if let Some(words) = cache_words(t, &row).filter(|_| row.code.is_some()) {
        facts.push(fact(t.request_cache, words.into_any()));
    }
    facts.push(fact(t.request_finish, finish_words(t, &row).into_any()));
    if let Some(status) = answered_with(&row) {
        facts.push(fact(t.request_status, status.to_string().into_any()));
    }
    if let Some(trace) = row.trace {
        let same = shown.narrowed(RequestQuery {
            code: Some(trace.to_string()),
            ..RequestQuery::default()
        });
        let of_trace = view! {
            <span class="of-trace">
                <Copy text=trace.to_string() />
                <a href=same.address(None, None)>{t.request_of_trace}</a>
            </span>
        };
        facts.push(fact(t.request_trace, of_trace.into_any()));
    }
    let words = row.code.as_deref().and_then(|code| t.error_by_name(code));
    let estimated = (!row.reported).then_some(t.request_estimated);
    let tries = (row.tries.len() > 1).then(|| {
        let title = format!("{}: {}", t.request_tries, way(&row));
        let tries = row
            .tries
            .clone()
            .into_iter()
            .map(|one| view! { <Try one /> })
            .collect_view();
        view! {
            <h3>{title}</h3>
            <ol class="tries">{tries}</ol>
        }
    });
    view! {
        <Copy text=row.id.to_string() />
        {words.map(|words| view! { <p class="bad-text">{words}</p> })}
        <dl class="facts">{facts}</dl>
        {estimated.map(|words| view! { <p class="muted">{words}</p> })}
        {tries}
    }
}

/// All that was counted, and which of it has a price of its own.
fn tokens(t: &'static Texts, row: &RequestRow) -> String {
    let numbers = [row.prompt_tokens, row.completion_tokens, row.cached_tokens]
        .map(group)
        .join(" / ");
    let parts = [
        (t.request_reasoning, row.reasoning_tokens),
        (t.request_audio_in, row.audio_input_tokens),
        (t.request_audio_out, row.audio_output_tokens),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(words, tokens)| Some(fill(words, &[&group(tokens.filter(|tokens| *tokens > 0)?)])))
        .collect();
    if parts.is_empty() {
        numbers
    } else {
        format!("{numbers} ({})", parts.join(", "))
    }
}

/// Every price that is not zero; `None` where none was kept.
fn billed_at(t: &'static Texts, prices: &BilledAt) -> Option<String> {
    prices.input?;
    let named = |words: &str, price: Option<Money>| {
        let price = price.filter(|price| *price != Money::ZERO)?;
        Some(fill(words, &[&dollars(price)]))
    };
    let tokens: Vec<String> = [
        named(t.price_in, prices.input),
        named(t.price_cached_in, prices.cached_input),
        named(t.price_out, prices.output),
        named(t.price_reasons, prices.reasoning),
        named(t.price_hears, prices.audio_input),
        named(t.price_speaks, prices.audio_output),
    ]
    .into_iter()
    .flatten()
    .collect();
    let tokens = (!tokens.is_empty()).then(|| fill(t.price_per_million, &[&tokens.join(", ")]));
    let all: Vec<String> = tokens.into_iter().chain(named(t.price_image, prices.image)).collect();
    Some(if all.is_empty() {
        t.price_free.to_owned()
    } else {
        all.join("; ")
    })
}

#[component]
fn Try(one: TryRow) -> impl IntoView {
    let t = use_texts();
    let came = match (one.code, one.status) {
        (None, _) => t.request_answered.to_owned(),
        (Some(code), Some(status)) => fill("{} ({})", &[&code, &status.to_string()]),
        (Some(code), None) => code,
    };
    view! {
        <li>
            <b>{one.provider}</b>
            " "
            <span class="muted">{one.model}</span>
            <span class="try-came">{came}" · "{duration(t, one.ms)}</span>
        </li>
    }
}

/// What is known of these; a call that was turned away got nowhere.
fn or_dash(parts: &[&str]) -> String {
    let known: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if known.is_empty() {
        "—".to_owned()
    } else {
        known.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use domain::Lang;

    use super::{super::tests::call, *};
    use crate::i18n::texts;

    #[test]
    fn every_count_and_every_price_that_is_not_zero_is_named() {
        let nanos = |text: &str| Some(text.parse::<Money>().unwrap());
        let row = RequestRow {
            reasoning_tokens: Some(1200),
            audio_input_tokens: Some(30),
            audio_output_tokens: Some(40),
            ..call()
        };
        let en = texts(Lang::En);
        assert_eq!(
            tokens(en, &row),
            "100 / 90 / 10 (1\u{202f}200 reasoning, 30 audio in, 40 audio out)"
        );
        assert_eq!(tokens(en, &call()), "100 / 90 / 10");
        let all = BilledAt {
            input: nanos("0.15"),
            cached_input: nanos("0.075"),
            output: nanos("0.6"),
            reasoning: nanos("0.9"),
            image: nanos("0.04"),
            audio_input: nanos("6"),
            audio_output: nanos("12"),
        };
        assert_eq!(
            billed_at(en, &all).unwrap(),
            "$0.15 in, $0.075 cached, $0.6 out, $0.9 reasoning, $6 audio in, $12 audio out per million tokens; $0.04 an image"
        );
        let zero = Some(Money::ZERO);
        let painted = BilledAt {
            input: zero,
            image: all.image,
            ..BilledAt::default()
        };
        assert_eq!(billed_at(texts(Lang::Ru), &painted).unwrap(), "$0.04 за картинку");
        let free = BilledAt {
            input: zero,
            ..BilledAt::default()
        };
        assert_eq!(billed_at(en, &free).unwrap(), "no price set");
        assert_eq!(billed_at(en, &BilledAt::default()), None, "nobody knows");
    }
}
