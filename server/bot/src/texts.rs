//! Everything the bot says by itself: one function for each text, so that one without its arguments does not compile.
//!
//! The words are in `locales/*/bot.ftl`. Results are plain text, to be sent with [`rich`]; nothing is parsed in them, so what
//! people call themselves needs no escaping, only [`name`] against characters that bend the text around them.

use std::{borrow::Cow, collections::HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    ErrorCode, Lang, LimitKind, Measure, Money, Period, Scope,
    views::{Entity, EntityKind, LimitBar, RichText},
};
use fluent_templates::{LanguageIdentifier, Loader, fluent_bundle::FluentValue, langid, static_loader};
use services::Reached;

static_loader! {
    static LOCALES = {
        locales: "./locales",
        fallback_language: "en",
        // The marks around arguments show as boxes in some clients; `name` takes care of what they are for.
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

static ENGLISH: LanguageIdentifier = langid!("en");
static RUSSIAN: LanguageIdentifier = langid!("ru");

/// The commands in the order of the menu.
pub const COMMANDS: [&str; 6] = ["start", "help", "new", "model", "usage", "stop"];

fn language(lang: Lang) -> &'static LanguageIdentifier {
    match lang {
        Lang::En => &ENGLISH,
        Lang::Ru => &RUSSIAN,
    }
}

fn say(lang: Lang, key: &str) -> String {
    LOCALES.lookup(language(lang), key)
}

fn say_with<const N: usize>(lang: Lang, key: &str, args: [(&'static str, FluentValue<'static>); N]) -> String {
    let args: HashMap<Cow<'static, str>, FluentValue> = args
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(name), value))
        .collect();
    LOCALES.lookup_with_args(language(lang), key, &args)
}

fn word(text: impl Into<String>) -> FluentValue<'static> {
    FluentValue::String(Cow::Owned(text.into()))
}

/// What `/start` says.
pub fn start(lang: Lang, user_name: &str, bot_name: &str) -> String {
    let user_name = name(user_name);
    let hello = if user_name.is_empty() {
        say(lang, "hello")
    } else {
        say_with(lang, "hello-name", [("name", word(user_name))])
    };
    let start = say_with(lang, "start", [("bot", word(name(bot_name)))]);
    format!("{hello} {start}\n\n{}", say(lang, "start-hint"))
}

/// The menu's commands with what they do, for `setMyCommands` and `/help`.
pub fn commands(lang: Lang) -> Vec<(&'static str, String)> {
    COMMANDS
        .into_iter()
        .map(|command| (command, say(lang, &format!("command-{command}"))))
        .collect()
}

pub fn help(lang: Lang, commands: &[(&str, String)]) -> String {
    let lines: String = commands
        .iter()
        .map(|(command, description)| format!("/{command} — {description}\n"))
        .collect();
    format!("{}\n{lines}\n{}", say(lang, "help"), say(lang, "help-text"))
}

pub fn new_conversation(lang: Lang) -> String {
    say(lang, "new-conversation")
}

pub fn stopped(lang: Lang) -> String {
    say(lang, "stopped")
}

pub fn nothing_to_stop(lang: Lang) -> String {
    say(lang, "nothing-to-stop")
}

/// To somebody who is about to pay.
pub fn no_payments(lang: Lang) -> String {
    say(lang, "no-payments")
}

/// Stands under an answer that its reader has stopped.
pub fn stopped_suffix(lang: Lang) -> String {
    say(lang, "stopped-suffix")
}

/// Stands under an answer that broke off by itself.
pub fn cut_suffix(lang: Lang, code: ErrorCode) -> String {
    format!("{}\n{code}", say(lang, "cut-suffix"))
}

/// The limits of a plan and what is used of them. What is set aside for answers being made counts as used.
pub fn usage(lang: Lang, bars: &[LimitBar], plan: &str) -> String {
    let mut text = say_with(lang, "usage", [("plan", word(name(plan)))]);
    for bar in bars {
        let what = say(lang, &key("measure", bar.kind));
        let used = bar
            .used
            .map(|used| amount(lang, bar.kind, used.saturating_add(bar.reserved)));
        let limit = bar.limit.map(|limit| amount(lang, bar.kind, limit));
        let line = match (&limit, &used, bar.resets_at) {
            (Some(_), Some(_), Some(_)) => "usage-line",
            (Some(_), Some(_), None) => "usage-line-unused",
            (Some(_), None, _) => "usage-line-unknown",
            (None, Some(_), _) => "usage-line-free",
            (None, None, _) => "usage-line-uncounted",
        };
        let resets = bar.resets_at.map(|at| moment(bar.kind, at));
        text.push('\n');
        text.push_str(&say_with(
            lang,
            line,
            [
                ("what", word(what)),
                ("used", word(used.unwrap_or_default())),
                ("limit", word(limit.unwrap_or_default())),
                ("resets", word(resets.unwrap_or_default())),
            ],
        ));
    }
    if bars.is_empty() {
        text.push('\n');
        text.push_str(&say(lang, "usage-no-limits"));
    }
    text
}

/// The models on offer, the one in use marked.
pub fn models(lang: Lang, list: &[String], current: &str) -> String {
    if list.is_empty() {
        return say(lang, "models-none");
    }
    let lines: String = list
        .iter()
        .map(|model| {
            let shown = if model == current {
                say_with(lang, "models-current", [("model", word(name(model)))])
            } else {
                name(model)
            };
            format!("• {shown}\n")
        })
        .collect();
    format!("{}\n{lines}\n{}", say(lang, "models"), say(lang, "models-hint"))
}

pub fn model_set(lang: Lang, model: &str) -> String {
    say_with(lang, "model-set", [("model", word(name(model)))])
}

pub fn model_unknown(lang: Lang, model: &str) -> String {
    let text = say_with(lang, "model-unknown", [("model", word(name(model)))]);
    format!("{text}\n{}", ErrorCode::NoModel)
}

/// A model that others may choose.
pub fn model_not_in_plan(lang: Lang, model: &str, plan: &str) -> String {
    let words = [("model", word(name(model))), ("plan", word(name(plan)))];
    format!("{}\n{}", say_with(lang, "model-not-in-plan", words), ErrorCode::NoModel)
}

/// Below the answer of a model that another one was chosen for.
pub fn model_instead(lang: Lang, chosen: &str, answers: &str) -> String {
    let words = [("chosen", word(name(chosen))), ("model", word(name(answers)))];
    say_with(lang, "model-instead", words)
}

fn resets(lang: Lang, kind: LimitKind, resets_at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    say_with(
        lang,
        "limit-resets",
        [
            ("in", word(time_until(lang, resets_at, now))),
            ("at", word(moment(kind, resets_at))),
        ],
    )
}

/// Which limit is used up, when it starts again, and the code. `limit` is in the unit of its kind.
pub fn limit_reached(lang: Lang, kind: LimitKind, limit: i64, resets_at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let text = say_with(
        lang,
        &key("limit", kind),
        [
            ("count", FluentValue::from(limit)),
            ("shown", word(amount(lang, kind, limit))),
        ],
    );
    if limit == 0 {
        // Nothing starts again.
        return format!("{text}\n{}", kind.code());
    }
    let resets = resets(lang, kind, resets_at, now);
    format!("{text} {resets}\n{}", kind.code())
}

/// Which limit is used up, whosever it is, when there is more, and the code. How much a limit of others is, is none of their business.
pub fn refused(lang: Lang, reached: Reached, now: DateTime<Utc>) -> String {
    let (kind, limit) = (reached.kind, reached.amount);
    let key_of_scope = match reached.scope {
        Scope::User => match reached.resets_at {
            Some(resets_at) if LimitKind::USUAL.contains(&kind) => {
                return limit_reached(lang, kind, limit, resets_at, now);
            }
            _ => "limit-own",
        },
        Scope::ApiKey => "limit-key",
        Scope::Bot => "limit-bot",
        Scope::Model => "limit-model",
        Scope::Deployment => "limit-deck",
    };
    let what = say(lang, &key("measure", kind));
    let text = say_with(
        lang,
        key_of_scope,
        [("what", word(what)), ("shown", word(amount(lang, kind, limit)))],
    );
    let code = kind.code_of(reached.scope);
    match reached.resets_at.filter(|_| limit > 0) {
        Some(at) => format!("{text} {}\n{code}", resets(lang, kind, at, now)),
        None => format!("{text}\n{code}"),
    }
}

/// What went wrong in plain words, what to do, and on the last line the code.
pub fn failed(lang: Lang, code: ErrorCode) -> String {
    let key = match code {
        ErrorCode::LimitMinute => "failed-limit-minute",
        ErrorCode::LimitDay => "failed-limit-day",
        ErrorCode::LimitTokens => "failed-limit-tokens",
        ErrorCode::LimitMoney => "failed-limit-money",
        ErrorCode::LimitMonth => "failed-limit-month",
        ErrorCode::LimitImages => "failed-limit-images",
        ErrorCode::LimitTotal => "failed-limit-total",
        ErrorCode::LimitKey => "failed-limit-key",
        ErrorCode::LimitBot => "failed-limit-bot",
        ErrorCode::LimitModel => "failed-limit-model",
        ErrorCode::LimitDeck => "failed-limit-deck",
        ErrorCode::AiTimeout => "failed-ai-timeout",
        ErrorCode::AiBusy => "failed-ai-busy",
        ErrorCode::AiAuth => "failed-ai-auth",
        ErrorCode::AiRefused => "failed-ai-refused",
        ErrorCode::AiContext => "failed-ai-context",
        ErrorCode::AiEmpty => "failed-ai-empty",
        ErrorCode::AiDown => "failed-ai-down",
        ErrorCode::AiCut => "failed-ai-cut",
        ErrorCode::TooLong => "failed-input-too-long",
        ErrorCode::Blocked => "failed-blocked",
        ErrorCode::NoModel => "failed-no-model",
        ErrorCode::Invalid => "failed-input",
        ErrorCode::Throttled => "failed-throttled",
        ErrorCode::Telegram => "failed-telegram",
        ErrorCode::Internal => "failed-internal",
        // Met by staff in the browser, not in a chat.
        ErrorCode::SignedOut
        | ErrorCode::BadLogin
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::Conflict
        | ErrorCode::Origin => "failed-other",
    };
    format!("{}\n{code}", say(lang, key))
}

/// Below an answer that was cut at the most tokens it may have.
pub fn length_suffix(lang: Lang) -> String {
    say(lang, "length-suffix")
}

/// Below an answer of which the provider's filter held back the rest.
pub fn filtered_suffix(lang: Lang) -> String {
    say(lang, "filtered-suffix")
}

pub fn blocked(lang: Lang) -> String {
    failed(lang, ErrorCode::Blocked)
}

pub fn too_long(lang: Lang) -> String {
    failed(lang, ErrorCode::TooLong)
}

/// To a photo, a voice message and the like.
pub fn only_text(lang: Lang) -> String {
    say(lang, "only-text")
}

/// To texts that came while nobody was listening, and that are not answered any more.
pub fn late(lang: Lang, messages: usize) -> String {
    let count = i64::try_from(messages).unwrap_or(i64::MAX);
    say_with(
        lang,
        "late",
        [("count", FluentValue::from(count)), ("shown", word(count.to_string()))],
    )
}

/// A text of ours as a message: codes such as `BD-LIMIT-DAY` are marked, so that one tap copies them.
pub fn rich(text: impl Into<String>) -> RichText {
    let text = text.into();
    let mut entities = Vec::new();
    let mut units = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        if ErrorCode::ALL.iter().any(|code| code.as_str() == bare) {
            entities.push(Entity {
                kind: EntityKind::Code,
                offset: units,
                length: bare.len(),
                url: None,
                language: None,
            });
        }
        units += line.encode_utf16().count();
    }
    RichText { text, entities }
}

/// A name from outside as it may stand in a sentence: one line, no marks that turn the direction of what follows, not long.
pub fn name(name: &str) -> String {
    let bends = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let flat: String = name
        .chars()
        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
        .filter(|c| !bends(*c))
        .collect();
    let flat: String = flat.trim().chars().take(64).collect();
    flat.trim_end().to_owned()
}

/// `limit-messages-per-day`: the name of a text about a limit.
fn key(prefix: &str, kind: LimitKind) -> String {
    format!("{prefix}-{}", kind.name().replace('_', "-"))
}

/// An amount in the unit of its kind, thousands grouped.
fn amount(lang: Lang, kind: LimitKind, amount: i64) -> String {
    if kind.measure() == Measure::Money {
        return Money::from_nanos(amount).to_string();
    }
    let separator = match lang {
        Lang::En => ',',
        Lang::Ru => '\u{a0}',
    };
    let digits = amount.unsigned_abs().to_string();
    let mut text = String::new();
    if amount < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// To the second where seconds matter, rounded up like the wait.
fn moment(kind: LimitKind, at: DateTime<Utc>) -> String {
    if kind.period() == Period::Minute {
        let up = at + TimeDelta::nanoseconds(999_999_999);
        return up.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    }
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// In the largest unit that says enough, rounded up: who waits so long is not turned away again.
fn time_until(lang: Lang, at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let millis = (at - now).num_milliseconds().max(0);
    let seconds = (millis + 999).div_euclid(1000).max(1);
    let (key, unit) = match seconds {
        ..=90 => ("in-seconds", 1),
        91..=5400 => ("in-minutes", MINUTE),
        5401..=172_800 => ("in-hours", HOUR),
        _ => ("in-days", DAY),
    };
    let count = (seconds + unit - 1).div_euclid(unit);
    say_with(
        lang,
        key,
        [("count", FluentValue::from(count)), ("shown", word(count.to_string()))],
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::{Duration, TimeZone};

    use super::*;

    const BOTH: [Lang; 2] = [Lang::En, Lang::Ru];

    fn keys(source: &str) -> BTreeSet<&str> {
        source
            .lines()
            .filter(|line| !line.starts_with(['#', ' ', '}', '\t']))
            .filter_map(|line| line.split_once(" ="))
            .map(|(key, _)| key)
            .collect()
    }

    /// The arguments that a text uses, by key.
    fn arguments(source: &str) -> BTreeSet<(String, String)> {
        let mut key = "";
        let mut found = BTreeSet::new();
        for line in source.lines() {
            if !line.starts_with(['#', ' ', '}'])
                && let Some((name, _)) = line.split_once(" =")
            {
                key = name;
            }
            for part in line.split('$').skip(1) {
                let name: String = part.chars().take_while(char::is_ascii_alphanumeric).collect();
                found.insert((key.to_owned(), name));
            }
        }
        found
    }

    fn noon() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 5, 3, 12, 0, 0).unwrap()
    }

    #[test]
    fn both_languages_have_the_same_texts_with_the_same_arguments() {
        let (en, ru) = (
            include_str!("../locales/en/bot.ftl"),
            include_str!("../locales/ru/bot.ftl"),
        );
        assert_eq!(keys(en), keys(ru));
        assert_eq!(arguments(en), arguments(ru));
        let all: HashMap<String, FluentValue> = arguments(en)
            .into_iter()
            .map(|(_, name)| (name, FluentValue::from(1)))
            .collect();
        for lang in BOTH {
            for key in keys(en) {
                let text = LOCALES.lookup_no_default_fallback(language(lang), key, Some(&all));
                assert!(text.is_some_and(|text| !text.is_empty()), "{key} in {lang:?}");
            }
        }
    }

    fn all_texts(lang: Lang) -> Vec<String> {
        let bar = |kind, limit| LimitBar {
            scope: Scope::User,
            name: String::new(),
            kind,
            limit,
            boosted_until: None,
            near: false,
            used: Some(3),
            reserved: 1,
            resets_at: Some(noon()),
        };
        let all_bars = |limit| -> Vec<LimitBar> { LimitKind::ALL.iter().map(|kind| bar(*kind, limit)).collect() };
        let vague = |limit, used| LimitBar {
            used,
            resets_at: None,
            ..bar(LimitKind::MessagesPerMinute, limit)
        };
        let mut texts = vec![
            start(lang, "Anna", "Deck"),
            start(lang, "\u{202e}", "Deck"),
            help(lang, &commands(lang)),
            new_conversation(lang),
            stopped(lang),
            nothing_to_stop(lang),
            stopped_suffix(lang),
            cut_suffix(lang, ErrorCode::AiCut),
            usage(lang, &all_bars(Some(1_000_000)), "free"),
            usage(lang, &all_bars(None), "free"),
            usage(
                lang,
                &[(Some(5), Some(0)), (Some(5), None), (None, None)].map(|(limit, used)| vague(limit, used)),
                "free",
            ),
            usage(lang, &[], "free"),
            models(lang, &["a".to_owned(), "b".to_owned()], "a"),
            models(lang, &[], "a"),
            model_set(lang, "a"),
            model_unknown(lang, "a"),
            model_not_in_plan(lang, "a", "free"),
            model_instead(lang, "a", "b"),
            blocked(lang),
            too_long(lang),
            only_text(lang),
            late(lang, 1),
            late(lang, 22),
        ];
        texts.extend(commands(lang).into_iter().map(|(_, description)| description));
        texts.extend(ErrorCode::ALL.iter().map(|code| failed(lang, *code)));
        for kind in LimitKind::ALL.iter().copied() {
            for limit in [0, 1, 2, 5, 1000] {
                for scope in Scope::ALL {
                    let reached = Reached {
                        scope,
                        kind,
                        amount: limit,
                        resets_at: (limit != 5).then(|| noon() + Duration::hours(3)),
                    };
                    texts.push(refused(lang, reached, noon()));
                }
            }
        }
        texts
    }

    #[test]
    fn every_text_is_whole() {
        for lang in BOTH {
            for text in all_texts(lang) {
                assert!(!text.is_empty() && text == text.trim(), "{text:?}");
                for bad in ["{", "}", "$", "Unknown", "\u{2068}", "\u{2069}"] {
                    let money = bad == "$" && text.contains("$0.0");
                    assert!(money || !text.contains(bad), "{text:?}");
                }
                let cyrillic = text.chars().any(|c| ('а'..='я').contains(&c));
                assert_eq!(cyrillic, lang == Lang::Ru, "{text:?}");
            }
        }
    }

    #[test]
    fn every_failure_ends_with_its_code_that_a_tap_copies() {
        for lang in BOTH {
            for code in ErrorCode::ALL {
                let text = failed(lang, *code);
                assert_eq!(text.lines().last(), Some(code.as_str()));
                let rich = rich(text);
                let entity = &rich.entities[0];
                let units: Vec<u16> = rich.text.encode_utf16().collect();
                let marked = String::from_utf16(&units[entity.offset..entity.offset + entity.length]).unwrap();
                assert_eq!(marked, code.as_str());
            }
        }
    }

    #[test]
    fn a_limit_says_which_when_and_the_code() {
        let text = |lang, kind, limit, wait| limit_reached(lang, kind, limit, noon() + wait, noon());
        assert_eq!(
            text(Lang::En, LimitKind::MessagesPerDay, 1000, Duration::hours(12)),
            "Your 1,000 messages of today are used up. You can go on in 12 hours (2026-05-04 00:00 UTC).\nBD-LIMIT-DAY"
        );
        assert_eq!(
            text(
                Lang::Ru,
                LimitKind::MessagesPerMinute,
                3,
                Duration::milliseconds(20_200)
            ),
            "Слишком быстро: на вашем тарифе 3 сообщения в минуту. Продолжить можно через 21 секунду (2026-05-03 12:00:21 UTC).\nBD-LIMIT-MINUTE"
        );
        assert!(
            text(Lang::Ru, LimitKind::MessagesPerDay, 21, Duration::minutes(2)).contains("21 сообщение израсходовано")
        );
        assert!(text(Lang::Ru, LimitKind::MessagesPerDay, 11, Duration::minutes(2)).contains("11 сообщений"));
        assert!(text(Lang::Ru, LimitKind::MoneyPerMonth, 2_500_000_000, Duration::days(5)).contains("$2.50"));
        assert_eq!(
            text(Lang::En, LimitKind::MessagesPerDay, 0, Duration::hours(1)),
            "Your plan allows no messages.\nBD-LIMIT-DAY"
        );
    }

    #[test]
    fn usage_says_of_a_minute_when_it_slides_on_and_what_is_not_known() {
        let line = |limit, used, resets_at| {
            let bar = LimitBar {
                scope: Scope::User,
                name: String::new(),
                kind: LimitKind::MessagesPerMinute,
                limit,
                boosted_until: None,
                near: false,
                used,
                reserved: 0,
                resets_at,
            };
            usage(Lang::En, &[bar], "free").lines().nth(1).unwrap().to_owned()
        };
        let at = noon() + Duration::milliseconds(12_001);
        assert_eq!(
            line(Some(20), Some(3), Some(at)),
            "Messages this minute: 3 of 20, starts again 2026-05-03 12:00:13 UTC"
        );
        assert_eq!(line(Some(20), Some(0), None), "Messages this minute: 0 of 20");
        assert_eq!(
            line(Some(20), None, None),
            "Messages this minute: 20 at most; how many are used is not known now"
        );
        assert_eq!(line(None, None, None), "Messages this minute: no limit");
    }

    #[test]
    fn a_limit_of_others_is_told_without_its_amount() {
        let text = |lang, scope, kind, resets_at| {
            let reached = Reached {
                scope,
                kind,
                amount: 7_000_000_000,
                resets_at,
            };
            refused(lang, reached, noon())
        };
        assert_eq!(
            text(
                Lang::En,
                Scope::Deployment,
                LimitKind::MoneyPerDay,
                Some(noon() + Duration::hours(12))
            ),
            "All bots here have used up what they may use together (Money today). \
             You can go on in 12 hours (2026-05-04 00:00 UTC).\nBD-LIMIT-DECK"
        );
        assert_eq!(
            text(Lang::En, Scope::Bot, LimitKind::TokensTotal, None),
            "This bot has used up what it may use (Tokens in all).\nBD-LIMIT-BOT"
        );
        assert_eq!(
            text(Lang::Ru, Scope::User, LimitKind::MoneyTotal, None),
            "Остатка вашего лимита не хватает на ответ (Деньги всего: $7.00).\nBD-LIMIT-TOTAL"
        );
    }

    #[test]
    fn waiting_times_are_rounded_up_and_agree_with_their_number() {
        let ru = |seconds| time_until(Lang::Ru, noon() + Duration::seconds(seconds), noon());
        assert_eq!(ru(-5), "через 1 секунду");
        assert_eq!(ru(22), "через 22 секунды");
        assert_eq!(ru(91), "через 2 минуты");
        assert_eq!(ru(5 * 60), "через 5 минут");
        assert_eq!(ru(21 * 60), "через 21 минуту");
        assert_eq!(ru(21 * 3600 - 5), "через 21 час");
        assert_eq!(ru(3 * 86_400), "через 3 дня");
        assert_eq!(ru(11 * 86_400), "через 11 дней");
    }

    #[test]
    fn names_from_outside_stay_within_their_place() {
        assert_eq!(name("  An\nna\u{202e}\u{0} \u{2067}B "), "An na B");
        assert_eq!(name("{ $bot }"), "{ $bot }");
        assert_eq!(name(&"я".repeat(500)).chars().count(), 64);
        assert_eq!(
            start(Lang::En, "{ $bot }", "Deck")
                .lines()
                .next()
                .unwrap()
                .split('!')
                .next(),
            Some("Hello, { $bot }")
        );
        assert!(start(Lang::En, "\u{202e}", "Deck").starts_with("Hello! I am Deck."));
    }

    #[test]
    fn the_menu_fits_telegram() {
        for lang in BOTH {
            for (command, description) in commands(lang) {
                assert!(command.bytes().all(|byte| byte.is_ascii_lowercase()));
                assert!((1..=256).contains(&description.encode_utf16().count()));
            }
        }
    }
}
