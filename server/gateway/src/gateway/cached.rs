//! Answers from the cache, where the caller allows it.

use bytes::Bytes;
use futures::stream;
use tokio::sync::oneshot;

use super::{forward::Keeping, *};
use crate::{
    CacheHit, CacheKey, CacheScope, Forward, Forwarded, NotForwarded, Outcome, SharedCache, Similar,
    cache::{self, Stored, Turnout},
};

impl Gateway {
    /// A cache that replicas share; only the first one given is taken.
    pub fn share_cache(&self, shared: Arc<dyn SharedCache>) {
        self.inner.cache.share(shared);
    }

    /// As [`Gateway::answer`], but whoever passes a scope is given an answer that somebody of the same scope got to the same
    /// question. It costs nothing, and says that it is `cached`. Equal questions at once are asked once. `similar` is asked, once for
    /// all of them, where there is none: an answer to another question that does for this one.
    pub async fn answer_cached(
        &self,
        request: &ChatRequest,
        scope: Option<&CacheScope>,
        similar: impl Future<Output = Option<Similar>> + Send,
        cancel: &CancellationToken,
        mut on_text: impl FnMut(&str) + Send,
    ) -> Answer {
        let live = self.live();
        let (Some(scope), Some(route)) = (scope, live.route(&request.model, ModelKind::Chat)) else {
            return self.answer(request, cancel, on_text).await;
        };
        let started = Instant::now();
        let overall = started + self.inner.deadlines.overall;
        let key = cache::key(scope, request, route);
        let lead = match self.turn_out(key, scope, cancel, overall).await {
            Turnout::Known(stored, hit) => return replayed(&stored, hit, started, &mut on_text),
            Turnout::Lead(lead) => lead,
            Turnout::Alone => {
                count_look("miss");
                return self.answer(request, cancel, on_text).await;
            }
        };
        if let Ok(Some(similar)) = within(cancel, overall, overall, "a similar question", similar).await {
            let stored = Arc::new(Stored::from(similar));
            lead.tell(Arc::clone(&stored), CacheHit::Semantic);
            return replayed(&stored, CacheHit::Semantic, started, &mut on_text);
        }
        count_look("miss");
        let mut ends = Vec::new();
        let answer = self
            .answer(request, cancel, |text| {
                ends.push(text.len());
                on_text(text);
            })
            .await;
        if answer.is_whole() {
            lead.keep(Arc::new(Stored {
                text: answer.text.clone(),
                ends,
                content_type: String::new(),
                finish: "stop".to_owned(),
                provider: answer.provider.clone(),
                model_id: answer.model_id,
            }));
        } else if answer.finish != Finish::Stopped {
            lead.tell_nothing();
        }
        answer
    }

    /// What all answers to a first question have in common but the question: of two with the same, one may do for the other. `None`
    /// where more was said before, or a name is not on the list. `embedder`: the model by which questions are compared.
    pub fn similarity_space(&self, scope: &CacheScope, request: &ChatRequest, embedder: &str) -> Option<CacheKey> {
        let live = self.live();
        let route = live.route(&request.model, ModelKind::Chat)?;
        let by = live
            .route(embedder, ModelKind::Embedding)
            .filter(|by| by.is_one_model())?;
        cache::space(scope, request, route, (embedder, by))
    }

    /// As [`Gateway::send_on`], with the cache that the call allows.
    pub(super) async fn forward_cached(
        &self,
        mut call: Forward,
        cancel: &CancellationToken,
    ) -> Result<Forwarded, Box<NotForwarded>> {
        let live = self.live();
        let scope = call.cache.take();
        let route = live.route(&call.alias, call.endpoint.kind());
        let key = scope.as_ref().zip(route);
        let key = key.and_then(|(scope, route)| cache::forward_key(scope, &call, route));
        let Some((scope, key)) = scope.zip(key) else {
            return self.send_on(call, None, cancel).await;
        };
        let started = Instant::now();
        let overall = started + self.inner.deadlines.overall;
        let lead = match self.turn_out(key, &scope, cancel, overall).await {
            Turnout::Known(stored, hit) => return Ok(passed_again(stored, hit, started)),
            Turnout::Lead(lead) => Arc::new(lead),
            Turnout::Alone => {
                count_look("miss");
                return self.send_on(call, None, cancel).await;
            }
        };
        count_look("miss");
        let passed = self.send_on(call, Some(Keeping::new(Arc::clone(&lead))), cancel).await;
        if let Err(refused) = &passed
            && refused.outcome.finish != Finish::Stopped
        {
            lead.tell_nothing();
        }
        passed
    }

    async fn turn_out(
        &self,
        key: CacheKey,
        scope: &CacheScope,
        cancel: &CancellationToken,
        overall: Instant,
    ) -> Turnout {
        let known = self.inner.cache.turn_out(key, scope);
        let known = within(cancel, overall, overall, "the answer of another", known).await;
        known.unwrap_or(Turnout::Alone)
    }
}

fn count_look(result: &'static str) {
    metrics::counter!("botdeck_cache_total", "result" => result).increment(1);
}

fn replayed(stored: &Stored, hit: CacheHit, started: Instant, on_text: &mut (dyn FnMut(&str) + Send)) -> Answer {
    count_look(hit.name());
    for text in stored.ends.iter().filter_map(|end| stored.text.get(..*end)) {
        on_text(text);
    }
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
        cached: Some(hit),
    }
}

/// The body of an answer, which its pieces share.
struct Body(Arc<Stored>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

fn passed_again(stored: Arc<Stored>, hit: CacheHit, started: Instant) -> Forwarded {
    count_look(hit.name());
    let (told, outcome) = oneshot::channel();
    // The other end is in this hand.
    let _ = told.send(Outcome {
        usage: Usage::default(),
        reported: true,
        cost: Money::ZERO,
        finish: Finish::Complete(stored.finish.clone()),
        first_token: Some(started.elapsed()),
        total: started.elapsed(),
        tries: Vec::new(),
        provider: stored.provider.clone(),
        model_id: stored.model_id,
        price: Price::default(),
        failure: None,
        cached: Some(hit),
    });
    let body = Bytes::from_owner(Body(Arc::clone(&stored)));
    let starts = std::iter::once(0).chain(stored.ends.iter().copied());
    let pieces: Vec<_> = starts
        .zip(&stored.ends)
        .map(|(start, end)| Ok(body.slice(start..*end)))
        .collect();
    Forwarded {
        content_type: stored.content_type.clone(),
        body: stream::iter(pieces).boxed(),
        outcome,
        cached: Some(hit),
    }
}
