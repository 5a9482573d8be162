//! The list of models and what they cost.

use domain::{Invalid, Money};

use crate::{Price, Usage};

/// A model users may choose. Prices are per million tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub name: String,
    pub context_tokens: u32,
    pub max_answer_tokens: u32,
    pub input_per_million: Money,
    pub output_per_million: Money,
    pub cached_input_per_million: Money,
}

/// A row of the price table: dollars per million are given in thousandths (150 is $0.15), so that none needs a float.
struct Known {
    name: &'static str,
    context: u32,
    answer: u32,
    input: i64,
    cached: i64,
    output: i64,
}

const fn known(name: &'static str, context: u32, answer: u32, [input, cached, output]: [i64; 3]) -> Known {
    Known {
        name,
        context,
        answer,
        input,
        cached,
        output,
    }
}

/// List prices of the standard tier. OpenAI: <https://developers.openai.com/api/docs/pricing>, as republished by several price
/// lists and compared on 2026-11-22. DeepSeek: <https://api-docs.deepseek.com/quick_start/pricing> as of 2025-12-09; it has
/// since begun to charge by the hour of the day and under new names. Whoever needs other prices writes `name@IN/OUT`.
const TABLE: &[Known] = &[
    known("gpt-4o", 128_000, 16_384, [2_500, 1_250, 10_000]),
    known("gpt-4o-mini", 128_000, 16_384, [150, 75, 600]),
    known("gpt-4.1", 1_047_576, 32_768, [2_000, 500, 8_000]),
    known("gpt-4.1-mini", 1_047_576, 32_768, [400, 100, 1_600]),
    known("gpt-4.1-nano", 1_047_576, 32_768, [100, 25, 400]),
    known("gpt-5", 400_000, 128_000, [1_250, 125, 10_000]),
    known("gpt-5-mini", 400_000, 128_000, [250, 25, 2_000]),
    known("gpt-5-nano", 400_000, 128_000, [50, 5, 400]),
    known("gpt-5-chat-latest", 128_000, 16_384, [1_250, 125, 10_000]),
    known("gpt-5.1", 400_000, 128_000, [1_250, 125, 10_000]),
    known("gpt-5.2", 400_000, 128_000, [1_750, 175, 14_000]),
    known("gpt-5.4", 400_000, 128_000, [2_500, 250, 15_000]),
    known("gpt-5.4-mini", 400_000, 128_000, [750, 75, 4_500]),
    known("o4-mini", 200_000, 100_000, [1_100, 275, 4_400]),
    known("deepseek-chat", 128_000, 8_192, [280, 28, 420]),
];

const DEFAULT_MODEL: &str = "gpt-4o-mini";
const UNKNOWN_CONTEXT: u32 = 128_000;
const UNKNOWN_ANSWER: u32 = 8_192;

impl Model {
    /// A model by name alone: prices and sizes from the table, or no price and a context of 128k.
    pub fn named(name: &str) -> Self {
        let row = known_row(name);
        let money = |pick: fn(&Known) -> i64| Money::from_nanos(row.map_or(0, pick).saturating_mul(1_000_000));
        Self {
            name: name.to_owned(),
            context_tokens: row.map_or(UNKNOWN_CONTEXT, |row| row.context),
            max_answer_tokens: row.map_or(UNKNOWN_ANSWER, |row| row.answer),
            input_per_million: money(|row| row.input),
            output_per_million: money(|row| row.output),
            cached_input_per_million: money(|row| row.cached),
        }
    }

    fn parse(entry: &str) -> Result<Self, Invalid> {
        let expected = Invalid("model names, each with or without prices: gpt-4o-mini, my-model@0.15/0.60");
        let Some((name, prices)) = entry.rsplit_once('@') else {
            return Ok(Self::named(entry));
        };
        let (input, output) = prices.split_once('/').ok_or_else(|| expected.clone())?;
        let name = name.trim();
        if name.is_empty() {
            return Err(expected);
        }
        let input: Money = input.parse().map_err(|_| expected.clone())?;
        let output: Money = output.parse().map_err(|_| expected)?;
        Ok(Self {
            input_per_million: input,
            output_per_million: output,
            // No discount is promised by a plain price, so none is given.
            cached_input_per_million: input,
            ..Self::named(name)
        })
    }
}

/// The row of `gpt-4o`, also under its dated name `gpt-4o-2024-08-06` and OpenRouter's `openai/gpt-4o`.
fn known_row(name: &str) -> Option<&'static Known> {
    let name = name.strip_prefix("openai/").unwrap_or(name);
    let find = |name: &str| TABLE.iter().find(|row| row.name == name);
    find(name).or_else(|| {
        let (base, date) = name.split_at_checked(name.len().checked_sub(11)?)?;
        let dated = date.bytes().enumerate().all(|(at, byte)| {
            if matches!(at, 0 | 5 | 8) {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        });
        dated.then(|| find(base)).flatten()
    })
}

/// Reads `OPENAI_MODEL`: names separated by commas, each with or without `@IN/OUT` in dollars per million tokens.
pub fn parse_models(text: &str) -> Result<Vec<Model>, Invalid> {
    let mut models: Vec<Model> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let model = Model::parse(entry)?;
        if !models.iter().any(|known| known.name == model.name) {
            models.push(model);
        }
    }
    Ok(if models.is_empty() {
        vec![Model::named(DEFAULT_MODEL)]
    } else {
        models
    })
}

/// [`parse_models`] for a setting that was checked at start: an entry that does not parse is taken as a bare name.
pub fn models_from(openai_model: Option<&str>) -> Vec<Model> {
    let text = openai_model.unwrap_or_default();
    parse_models(text).unwrap_or_else(|_| {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| Model::parse(entry).unwrap_or_else(|_| Model::named(entry)))
            .collect()
    })
}

/// What `usage` costs, rounded up once to a whole nano-dollar.
pub fn price(model: &Model, usage: Usage) -> Money {
    usage.cost(&Price::from(model))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(prompt_tokens: i64, completion_tokens: i64, cached_tokens: i64) -> Usage {
        Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            ..Usage::default()
        }
    }

    #[test]
    fn the_list_is_read_with_prices_of_ones_own() {
        let models = models_from(Some(" gpt-4o-mini, llama3:8b ,meta/x@y@0.15/$0.6,gpt-4o-mini"));
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["gpt-4o-mini", "llama3:8b", "meta/x@y"]);
        assert_eq!(models[0].output_per_million, "0.60".parse().unwrap());
        assert_eq!(
            (models[1].input_per_million, models[1].context_tokens),
            (Money::ZERO, 128_000)
        );
        assert_eq!(models[2].input_per_million, "0.15".parse().unwrap());
        assert_eq!(models[2].cached_input_per_million, "0.15".parse().unwrap());
    }

    #[test]
    fn the_list_is_never_empty_and_faults_are_told() {
        for empty in [None, Some(""), Some(" , ")] {
            assert_eq!(models_from(empty), [Model::named("gpt-4o-mini")]);
        }
        for bad in ["x@1", "x@a/b", "@1/2", "x@1/-2"] {
            assert!(parse_models(bad).is_err(), "{bad} was taken");
            assert_eq!(models_from(Some(bad))[0].name, bad);
        }
    }

    #[test]
    fn dated_and_prefixed_names_have_the_same_price() {
        for name in ["gpt-4o-2024-08-06", "openai/gpt-4o"] {
            assert_eq!(Model::named(name).input_per_million, "2.50".parse().unwrap(), "{name}");
        }
        for name in ["gpt-4o-audio", "ж-2024-08-06", "é", "2024-08-06"] {
            assert_eq!(Model::named(name).input_per_million, Money::ZERO, "{name}");
        }
    }

    #[test]
    fn prices_are_exact_and_cached_tokens_cheaper() {
        let model = Model::named("gpt-4o-mini");
        assert_eq!(price(&model, usage(1_000_000, 1_000_000, 0)), "0.75".parse().unwrap());
        assert_eq!(price(&model, usage(1_000_000, 0, 1_000_000)), "0.075".parse().unwrap());
        assert_eq!(
            price(&model, usage(1000, 10, 500)).nanos(),
            500 * 150 + 500 * 75 + 10 * 600
        );
        assert_eq!(price(&model, usage(-5, -5, 70)), Money::ZERO);
        assert_eq!(price(&model, usage(i64::MAX, i64::MAX, 0)).nanos(), i64::MAX);
    }

    proptest! {
        #[test]
        fn more_tokens_never_cost_less(prompt in 0..1_000_000_i64, completion in 0..1_000_000_i64, more in 0..1000_i64) {
            let model = Model::named("gpt-5-nano");
            let base = price(&model, usage(prompt, completion, 0));
            prop_assert!(price(&model, usage(prompt + more, completion, 0)) >= base);
            prop_assert!(price(&model, usage(prompt, completion + more, 0)) >= base);
            prop_assert!(price(&model, usage(prompt, completion, prompt / 2)) <= base);
        }

        #[test]
        fn any_setting_gives_a_list(text in ".{0,80}") {
            prop_assert!(!models_from(Some(&text)).is_empty());
        }
    }
}
