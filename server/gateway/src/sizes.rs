//! How much each model was seen to read at once. What the catalogue says of it may be wrong, and a model that finds a question too long
//! finds the next one of that length too long as well: where another one may be asked, it comes last for a while.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::ProviderId;
use tokio::time::Instant;

use crate::ModelSpec;

/// For how long a refusal is remembered: a model may be given more room.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// More models than this are on no list.
const MOST_MODELS: usize = 1000;

/// Tokens of a question, by our estimate, and of the longest answer that it asks for: some models have room for both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) prompt: u32,
    pub(crate) answer: u32,
}

impl Size {
    fn holds(self, other: Self) -> bool {
        self.prompt >= other.prompt && self.answer >= other.answer
    }

    fn total(self) -> u32 {
        self.prompt.saturating_add(self.answer)
    }
}

/// What was seen of one model.
struct Seen {
    /// The smallest.
    refused: Size,
    /// The longest question that was answered although one as long had been refused: our estimates are not the model's count.
    accepted: u32,
    until: Instant,
}

/// Of all models that have refused something, by provider and name.
#[derive(Default)]
pub(crate) struct Sizes(Mutex<HashMap<(ProviderId, String), Seen>>);

impl Sizes {
    fn seen(&self) -> MutexGuard<'_, HashMap<(ProviderId, String), Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing was ever too long for any model, so that nothing need be estimated.
    pub(crate) fn is_empty(&self) -> bool {
        self.seen().is_empty()
    }

    /// As much as this has been too long for the model, and nothing as long was not.
    pub(crate) fn is_too_long(&self, model: &ModelSpec, size: Size) -> bool {
        let all = self.seen();
        let seen = all.get(&key(model)).filter(|seen| seen.until > Instant::now());
        seen.is_some_and(|seen| size.holds(seen.refused) && size.prompt > seen.accepted)
    }

    /// The model has found it too long.
    pub(crate) fn refused(&self, model: &ModelSpec, size: Size) {
        let now = Instant::now();
        let mut all = self.seen();
        let known = all.remove(&key(model)).filter(|seen| seen.until > now);
        let (mut refused, mut accepted) = (size, 0);
        if let Some(seen) = known {
            accepted = seen.accepted;
            if seen.refused.total() < size.total() {
                refused = seen.refused;
            }
        }
        if all.len() >= MOST_MODELS {
            all.retain(|_, seen| seen.until > now);
            let oldest = all
                .iter()
                .min_by_key(|(_, seen)| seen.until)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| all.len() >= MOST_MODELS) {
                all.remove(&oldest);
            }
        }
        let until = now + REMEMBERED;
        all.insert(
            key(model),
            Seen {
                refused,
                accepted,
                until,
            },
        );
    }

    /// The model has answered. `size` is asked for only if something was too long for it before.
    pub(crate) fn accepted(&self, model: &ModelSpec, size: impl FnOnce() -> Size) {
        if !self.seen().contains_key(&key(model)) {
            return;
        }
        let size = size();
        if let Some(seen) = self.seen().get_mut(&key(model))
            && size.holds(seen.refused)
        {
            seen.accepted = seen.accepted.max(size.prompt);
        }
    }
}

fn key(model: &ModelSpec) -> (ProviderId, String) {
    (model.provider, model.name.clone())
}

#[cfg(test)]
mod tests {
    use domain::{ModelId, ModelKind, Price};
    use uuid::Uuid;

    use super::*;

    fn model(name: usize) -> ModelSpec {
        ModelSpec {
            id: ModelId(Uuid::nil()),
            provider: ProviderId(Uuid::nil()),
            name: format!("m-{name}"),
            kind: ModelKind::Chat,
            context_tokens: 1000,
            max_answer_tokens: 100,
            price: Price::default(),
        }
    }

    fn size(prompt: u32, answer: u32) -> Size {
        Size { prompt, answer }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_too_long_is_too_long_for_an_hour() {
        let (sizes, model) = (Sizes::default(), model(1));
        assert!(sizes.is_empty() && !sizes.is_too_long(&model, size(9000, 100)));
        sizes.refused(&model, size(5000, 100));
        sizes.refused(&model, size(6000, 100));
        for (prompt, answer, too_long) in [
            (5000, 100, true),
            (9000, 200, true),
            (4999, 100, false),
            (5000, 99, false),
        ] {
            assert_eq!(
                sizes.is_too_long(&model, size(prompt, answer)),
                too_long,
                "{prompt} {answer}"
            );
        }
        assert!(!sizes.is_too_long(&self::model(2), size(9000, 100)), "another model");
        sizes.refused(&model, size(4000, 100));
        assert!(sizes.is_too_long(&model, size(4000, 100)));
        // It was the answer that was too long here, not the question.
        sizes.refused(&model, size(10, 1_000_000));
        assert!(!sizes.is_too_long(&model, size(10, 100)) && sizes.is_too_long(&model, size(4000, 100)));
        tokio::time::advance(REMEMBERED).await;
        assert!(!sizes.is_too_long(&model, size(9000, 100)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_answered_is_not_too_long() {
        let (sizes, model) = (Sizes::default(), model(1));
        sizes.accepted(&model, || panic!("nothing need be known"));
        sizes.refused(&model, size(5000, 100));
        sizes.accepted(&model, || size(5500, 100));
        assert!(!sizes.is_too_long(&model, size(5500, 100)) && sizes.is_too_long(&model, size(5501, 100)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_models_are_remembered_than_there_can_be() {
        let sizes = Sizes::default();
        for name in 0..=MOST_MODELS {
            sizes.refused(&model(name), size(10, 10));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(sizes.seen().len(), MOST_MODELS);
        assert!(!sizes.is_too_long(&model(0), size(10, 10)), "the oldest is forgotten");
        assert!(sizes.is_too_long(&model(1), size(10, 10)) && sizes.is_too_long(&model(MOST_MODELS), size(10, 10)));
    }
}
