//! How many tokens a picture in a question may be billed at, by the name of the model and the detail that is asked for.

/// A number for each detail in which a model may look at a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByDetail {
    pub low: i64,
    pub high: i64,
    /// Left to the provider, or the whole picture as it is.
    pub auto: i64,
}

const fn all(tokens: i64) -> ByDetail {
    ByDetail {
        low: tokens,
        high: tokens,
        auto: tokens,
    }
}

/// A large picture is scaled to 768 by 2048 points, which eight tiles of 512 by 512 cover; a small one costs the base alone.
const fn tiles(base: i64, tile: i64) -> ByDetail {
    ByDetail {
        low: base,
        ..all(base + 8 * tile)
    }
}

/// 1,536 squares of 32 by 32 points at most, each so many hundredths of a token, whatever detail is asked for.
const fn patches(hundredths: i64) -> ByDetail {
    all((1536 * hundredths + 99) / 100)
}

/// By how a name begins; the first that fits counts. OpenAI: <https://platform.openai.com/docs/guides/images-vision#calculating-costs>
/// as of 2026-11, where what was measured is not less (<https://community.openai.com/t/1377015>). Its dotted fives take 2,500 squares in
/// high detail (at 2.46 for the smallest of them) and 10,000 of a picture as it is (at 1.2, by the larger ones alone). Anthropic:
/// <https://platform.claude.com/docs/en/build-with-claude/vision>, 4,784 tokens since Opus 4.7.
const FAMILIES: &[(&str, ByDetail)] = &[
    ("gpt-4o-mini", tiles(2833, 5667)),
    ("gpt-4.1-mini", patches(162)),
    ("gpt-4.1-nano", patches(246)),
    ("gpt-4", tiles(85, 170)),
    ("chatgpt-4o", tiles(85, 170)),
    ("gpt-5-mini", patches(162)),
    ("gpt-5-nano", patches(246)),
    (
        "gpt-5.",
        ByDetail {
            auto: 12_000,
            ..all(6150)
        },
    ),
    ("gpt-5", tiles(70, 140)),
    ("o4-mini", patches(172)),
    ("codex-mini", patches(172)),
    ("o1", tiles(75, 150)),
    ("o3", tiles(75, 150)),
    ("computer-use", tiles(65, 129)),
    ("claude", all(4784)),
];

/// Of models that nobody knows here: what Qwen-VL takes at most, the most of the open ones
/// (`max_pixels`, <https://github.com/QwenLM/Qwen2.5-VL#image-resolution-for-performance-boost>).
const OTHERS: ByDetail = all(16_384);

impl ByDetail {
    /// The most tokens of one picture.
    pub(crate) fn of_model(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let name = name.rsplit('/').next().unwrap_or_default();
        let name = name.strip_prefix("ft:").unwrap_or(name);
        let known = FAMILIES.iter().find(|(family, _)| name.starts_with(family));
        known.map_or(OTHERS, |(_, tokens)| *tokens)
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            low: self.low.max(other.low),
            high: self.high.max(other.high),
            auto: self.auto.max(other.auto),
        }
    }

    /// Of so many pictures, if this is one's.
    pub fn of(self, pictures: Self) -> i64 {
        let low = self.low.saturating_mul(pictures.low);
        let high = self.high.saturating_mul(pictures.high);
        low.saturating_add(high)
            .saturating_add(self.auto.saturating_mul(pictures.auto))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_reckoned_by_the_family_of_its_model() {
        for (name, low, high) in [
            ("gpt-4o-mini-2024-07-18", 2833, 48_169),
            ("openai/gpt-4o-mini", 2833, 48_169),
            ("ft:gpt-4o-mini:mine", 2833, 48_169),
            ("gpt-4o", 85, 1445),
            ("gpt-4.1", 85, 1445),
            ("GPT-4.1-mini", 2489, 2489),
            ("gpt-5", 70, 1190),
            ("gpt-5-mini", 2489, 2489),
            ("gpt-5.4-nano", 6150, 6150),
            ("o3", 75, 1275),
            ("claude-opus-4-7", 4784, 4784),
            ("something", 16_384, 16_384),
        ] {
            let tokens = ByDetail::of_model(name);
            assert_eq!((tokens.low, tokens.high), (low, high), "{name}");
            assert!(tokens.auto >= tokens.high, "{name}");
        }
        let pictures = ByDetail {
            low: 2,
            high: 1,
            auto: 0,
        };
        assert_eq!(ByDetail::of_model("gpt-4o").of(pictures), 2 * 85 + 1445);
    }
}
