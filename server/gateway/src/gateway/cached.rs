//! Answers from the cache, where the caller allows it.

use super::*;
use crate::{
    CacheScope, SharedCache,
    cache::{self, Look, Stored},
};

impl Gateway {
    /// A cache that replicas share; only the first one given is taken.
    pub fn share_cache(&self, shared: Arc<dyn SharedCache>) {
        self.inner.cache.share(shared);
    }

    /// As [`Gateway::answer`], but whoever passes a scope is given an answer that somebody of the same scope got to the same
    /// question. It costs nothing, and says that it is `cached`. Equal questions at once are asked once.
    pub async fn answer_cached(
        &self,
        request: &ChatRequest,
        scope: Option<&CacheScope>,
        cancel: &CancellationToken,
        mut on_text: impl FnMut(&str) + Send,
    ) -> Answer {
        let live = self.live();
        let (Some(scope), Some(route)) = (scope, live.routes.get(&request.model)) else {
            return self.answer(request, cancel, on_text).await;
        };
        let started = Instant::now();
        let key = cache::key(scope, request, &route.targets());
        let lead = match self.inner.cache.look(key) {
            Look::Hit(stored) => return replayed(&stored, started, &mut on_text),
            Look::Lead(lead) => lead,
            Look::Wait(mut flight) => {
                let overall = started + self.inner.deadlines.overall;
                let known = flight.wait_for(Option::is_some);
                let known = within(cancel, overall, overall, "the answer of another", known).await;
                let stored = known.ok().and_then(|known| known.ok()?.clone());
                return match stored {
                    Some(stored) => replayed(&stored, started, &mut on_text),
                    // The one who asked first got nothing, or this one was stopped: it goes its own way.
                    None => self.answer(request, cancel, on_text).await,
                };
            }
        };
        if let Some(stored) = lead.shared().await {
            lead.keep(Arc::clone(&stored));
            return replayed(&stored, started, &mut on_text);
        }
        let mut ends = Vec::new();
        let answer = self
            .answer(request, cancel, |text| {
                ends.push(text.len());
                on_text(text);
            })
            .await;
        // Neither what was cut short nor what was held back is worth keeping.
        if let (Finish::Complete(word), None) = (&answer.finish, &answer.failure)
            && word == "stop"
        {
            let stored = Arc::new(Stored {
                text: answer.text.clone(),
                ends,
                finish: word.clone(),
                provider: answer.provider.clone(),
                model_id: answer.model_id,
            });
            lead.keep(Arc::clone(&stored));
            lead.spread(&stored).await;
        }
        answer
    }
}

fn replayed(stored: &Stored, started: Instant, on_text: &mut (dyn FnMut(&str) + Send)) -> Answer {
    for end in &stored.ends {
        on_text(&stored.text[..*end]);
    }
    metrics::counter!("botdeck_ai_cache_hits_total").increment(1);
    Answer {
        text: stored.text.clone(),
        finish: Finish::Complete(stored.finish.clone()),
        usage: Usage::default(),
        usage_reported: true,
        cost: Money::ZERO,
        first_token: Some(started.elapsed()),
        total: started.elapsed(),
        attempts: 0,
        failure: None,
        tries: Vec::new(),
        provider: stored.provider.clone(),
        model_id: stored.model_id,
        price: Price::default(),
        cached: true,
    }
}
