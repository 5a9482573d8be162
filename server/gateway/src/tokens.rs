//! Token counts for estimates: budgets before a call, bills when a provider did not tell. Otherwise the provider's word counts.

use crate::Turn;

/// The tokens with which chat models wrap each message, and with which they begin the answer.
pub const TOKENS_PER_MESSAGE: u32 = 4;
const PER_PROMPT: u32 = 3;
/// A longer text is counted up to here and the rest in proportion.
const COUNTED_BYTES: usize = 256 * 1024;
/// Long runs without a space are cut: the tokeniser's work on one run grows faster than its length.
const RUN_BYTES: usize = 512;
const BLOCK_BYTES: usize = 8 * 1024;

/// Loads the tokeniser (a few hundred milliseconds, once per process); call it at start, outside the runtime's threads.
pub fn warm_up() {
    count_tokens("warm");
}

/// Tokens of `text` in OpenAI's `o200k_base`: exact for ordinary texts, near enough for other models and for very long ones.
pub fn count_tokens(text: &str) -> u32 {
    let bpe = tiktoken_rs::o200k_base_singleton();
    let counted = &text[..floor_boundary(text, COUNTED_BYTES)];
    let mut tokens = 0_u64;
    let mut rest = counted;
    while !rest.is_empty() {
        let (block, after) = rest.split_at(block_end(rest));
        tokens += bpe.count_ordinary(block) as u64;
        rest = after;
    }
    if counted.len() < text.len() {
        tokens = (tokens * text.len() as u64).div_ceil(counted.len() as u64);
    }
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// Tokens a provider will count for this conversation, with what it adds around each message.
pub fn estimate_prompt(turns: &[Turn]) -> u32 {
    turns.iter().fold(PER_PROMPT, |sum, turn| {
        sum.saturating_add(TOKENS_PER_MESSAGE)
            .saturating_add(count_tokens(&turn.text))
    })
}

/// Where the next block ends: before a space once it is long enough (tokens begin with their space), or inside an endless run.
fn block_end(text: &str) -> usize {
    let mut run_start = 0;
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            if at >= BLOCK_BYTES {
                return at;
            }
            run_start = at;
        } else if at - run_start >= RUN_BYTES {
            return at;
        }
    }
    text.len()
}

fn floor_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::Role;

    #[test]
    fn ordinary_texts_are_counted_exactly() {
        assert_eq!(count_tokens(""), 0);
        assert_eq!(count_tokens("Hello, world!"), 4);
        let long = "The quick brown fox jumps over the lazy dog. ".repeat(1000);
        let exact = tiktoken_rs::o200k_base_singleton().count_ordinary(&long);
        assert_eq!(count_tokens(&long) as usize, exact);
    }

    #[test]
    fn hostile_texts_are_cheap() {
        warm_up();
        let start = Instant::now();
        for text in [
            "a".repeat(3_000_000),
            "\u{4f60}".repeat(500_000),
            " ".repeat(1_000_000),
            "<|endoftext|>".repeat(100_000),
        ] {
            assert!(count_tokens(&text) > 100);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn each_message_costs_something() {
        let turn = Turn {
            role: Role::User,
            text: String::new(),
        };
        assert_eq!(estimate_prompt(&[]), PER_PROMPT);
        assert_eq!(
            estimate_prompt(&[turn.clone(), turn]),
            PER_PROMPT + 2 * TOKENS_PER_MESSAGE
        );
    }

    proptest! {
        #[test]
        fn more_text_is_hardly_ever_fewer_tokens(first in ".{0,400}", second in ".{0,400}") {
            let (one, two) = (count_tokens(&first), count_tokens(&second));
            let both = count_tokens(&format!("{first}{second}"));
            // Joining merges a little at the seam, never more.
            prop_assert!(both <= one + two + 8 && both + 8 >= one.max(two));
            prop_assert!(first.is_empty() || one >= 1);
            prop_assert!(one as usize <= first.len());
        }

        #[test]
        fn a_longer_conversation_is_a_larger_estimate(texts in proptest::collection::vec(".{0,60}", 0..8), more in ".{0,60}") {
            let mut turns: Vec<Turn> = texts.into_iter().map(|text| Turn { role: Role::User, text }).collect();
            let before = estimate_prompt(&turns);
            turns.push(Turn { role: Role::Assistant, text: more });
            prop_assert!(estimate_prompt(&turns) >= before + TOKENS_PER_MESSAGE);
        }
    }
}
