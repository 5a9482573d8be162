//! One event of a stream, read with all the liberties that OpenAI-compatible servers take.

use serde_json::Value;

use super::fault::{Cleaner, from_chunk};
use crate::{Chunk, GatewayError, Usage};

/// Where only the length of a recording is told: a price per minute is a thousandth of the price of a million tokens.
const TOKENS_PER_MINUTE: f64 = 1000.0;

/// What an event says: nothing, text, the end, the usage, or an error, and several of them at once.
pub(super) fn chunks(event: &Value, cleaner: &Cleaner) -> Vec<Result<Chunk, GatewayError>> {
    if let Some(error) = from_chunk(event, cleaner) {
        return vec![Err(error)];
    }
    let mut chunks = Vec::new();
    let choice = &event["choices"][0];
    // A server that cannot stream puts the whole answer into `message`.
    let delta = match &choice["delta"] {
        Value::Null => &choice["message"],
        delta => delta,
    };
    // A model that will not answer says so in `refusal`, with `content` null.
    let text = text_of(&delta["content"])
        .or_else(|| text_of(&delta["refusal"]))
        .or_else(|| text_of(&choice["text"]));
    let thinks = || {
        ["reasoning_content", "reasoning"]
            .iter()
            .any(|name| text_of(&delta[*name]).is_some())
    };
    match text {
        Some(text) => chunks.push(Ok(Chunk::Text(text))),
        // A sign of life; thoughts are not part of the answer.
        None if thinks() => chunks.push(Ok(Chunk::Text(String::new()))),
        None => {}
    }
    match choice["finish_reason"].as_str() {
        None | Some("") => {}
        // OpenRouter's word for an upstream that failed.
        Some("error") => chunks.push(Err(GatewayError::down("the upstream provider failed"))),
        Some(word) => chunks.push(Ok(Chunk::Finish(word.to_owned()))),
    }
    if let Some(usage) = usage_of(&event["usage"]) {
        chunks.push(Ok(Chunk::Usage(usage)));
    }
    chunks
}

/// Text as a string or as a list of parts; `None` when there is none.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(parts) => {
            let text: String = parts
                .iter()
                .filter_map(|part| part["text"].as_str().or(part.as_str()))
                .collect();
            (!text.is_empty()).then_some(text)
        }
        _ => None,
    }
}

/// No answer has more of anything; a server that reports more is broken, and must not spoil the sums of a ledger.
const MOST_COUNTED: i64 = 1_000_000_000;

/// A count that a server reports, within what can be.
pub(crate) fn count_of(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit is bounded below")]
    let number = value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))?;
    Some(number.clamp(0, MOST_COUNTED))
}

/// Usage, unless it is missing, null or says nothing. Zero is something that was said.
pub(crate) fn usage_of(value: &Value) -> Option<Usage> {
    let number = count_of;
    if let Some(seconds) = value["seconds"].as_f64().filter(|_| value["type"] == "duration") {
        let tokens = number(&Value::from((seconds * TOKENS_PER_MINUTE / 60.0).ceil()))?;
        return Some(Usage {
            prompt_tokens: tokens,
            audio_input_tokens: tokens,
            ..Usage::default()
        });
    }
    // The words of chat completions, then those of all later endpoints.
    let first = |names: [&str; 2]| names.iter().find_map(|name| number(&value[*name]));
    let prompt = first(["prompt_tokens", "input_tokens"]);
    let completion = first(["completion_tokens", "output_tokens"]);
    let rest = |known: i64| number(&value["total_tokens"]).map_or(0, |total| (total - known).max(0));
    let (prompt_tokens, completion_tokens) = match (prompt, completion) {
        (None, None) => return None,
        (Some(prompt), Some(completion)) => (prompt, completion),
        (Some(prompt), None) => (prompt, rest(prompt)),
        (None, Some(completion)) => (rest(completion), completion),
    };
    let part = |places: [&str; 3], name: &str| places.iter().find_map(|place| number(&value[*place][name]));
    let of_prompt = ["prompt_tokens_details", "input_tokens_details", "input_token_details"];
    let of_completion = [
        "completion_tokens_details",
        "output_tokens_details",
        "output_token_details",
    ];
    // OpenAI's place for it, then DeepSeek's.
    let cached = part(of_prompt, "cached_tokens").or_else(|| number(&value["prompt_cache_hit_tokens"]));
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens: cached.unwrap_or(0).min(prompt_tokens),
        reasoning_tokens: part(of_completion, "reasoning_tokens")
            .unwrap_or(0)
            .min(completion_tokens),
        audio_input_tokens: part(of_prompt, "audio_tokens").unwrap_or(0).min(prompt_tokens),
        audio_output_tokens: part(of_completion, "audio_tokens").unwrap_or(0).min(completion_tokens),
        images: 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::SecretString;
    use serde_json::json;

    use super::*;

    fn read(event: Value) -> Vec<Chunk> {
        let cleaner = Cleaner::new(SecretString::from(""));
        chunks(&event, &cleaner).into_iter().map(Result::unwrap).collect()
    }

    fn text(text: &str) -> Chunk {
        Chunk::Text(text.into())
    }

    #[test]
    fn all_dialects_are_understood() {
        let usage = |prompt_tokens, completion_tokens, cached_tokens| {
            Chunk::Usage(Usage {
                prompt_tokens,
                completion_tokens,
                cached_tokens,
                ..Usage::default()
            })
        };
        for (event, expected) in [
            (
                json!({"choices": [{"delta": {"content": "a"}, "finish_reason": null}], "usage": null}),
                vec![text("a")],
            ),
            (
                json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
                vec![],
            ),
            (
                json!({"choices": [{"delta": {"content": null, "reasoning_content": "hm"}}]}),
                vec![text("")],
            ),
            (
                json!({"choices": [{"delta": {"content": null, "refusal": "I can't"}}]}),
                vec![text("I can't")],
            ),
            (
                json!({"choices": [{"delta": {"content": [{"type": "text", "text": "b"}]}}]}),
                vec![text("b")],
            ),
            (
                json!({"choices": [{"message": {"content": "c"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
                vec![text("c"), Chunk::Finish("stop".into()), usage(1, 2, 0)],
            ),
            (
                json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 4}}}),
                vec![usage(9, 0, 4)],
            ),
            (
                json!({"usage": {"prompt_tokens": 9.0, "total_tokens": 12, "prompt_cache_hit_tokens": 99}}),
                vec![usage(9, 3, 9)],
            ),
            (
                json!({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
                vec![usage(0, 0, 0)],
            ),
            (
                json!({"choices": [{"delta": null, "finish_reason": ""}], "usage": {}}),
                vec![],
            ),
            (json!({"choices": null}), vec![]),
            (json!({"choices": {}, "usage": "many"}), vec![]),
            (json!([]), vec![]),
        ] {
            assert_eq!(read(event.clone()), expected, "{event}");
        }
    }

    #[test]
    fn absurd_counts_are_bounded() {
        for absurd in [json!(i64::MAX), json!(u64::MAX), json!(1e300), json!(MOST_COUNTED + 1)] {
            let usage = usage_of(&json!({"prompt_tokens": absurd, "completion_tokens": absurd,
                "prompt_tokens_details": {"cached_tokens": absurd, "audio_tokens": absurd}}))
            .unwrap();
            assert_eq!(
                (
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    usage.cached_tokens,
                    usage.audio_input_tokens
                ),
                (MOST_COUNTED, MOST_COUNTED, MOST_COUNTED, MOST_COUNTED),
                "{absurd}"
            );
            let rest = usage_of(&json!({"prompt_tokens": 1, "total_tokens": absurd})).unwrap();
            assert_eq!(rest.completion_tokens, MOST_COUNTED - 1);
            let heard = usage_of(&json!({"type": "duration", "seconds": absurd})).unwrap();
            assert_eq!(heard.audio_input_tokens, MOST_COUNTED);
        }
        let below = usage_of(&json!({"prompt_tokens": -5, "completion_tokens": i64::MIN})).unwrap();
        assert_eq!((below.prompt_tokens, below.completion_tokens), (0, 0));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec![
            "choices",
            "delta",
            "message",
            "content",
            "finish_reason",
            "usage",
            "prompt_tokens",
            "error",
            "text",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_shape_breaks_it(event in any_json()) {
            let cleaner = Cleaner::new(SecretString::from("k"));
            prop_assert!(chunks(&event, &cleaner).len() <= 3);
        }
    }
}
