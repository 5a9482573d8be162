//! Answers to questions that mean much the same: the first one of a conversation is compared with others that came first.
//!
//! What tells how alike two questions are is made by an embedding model and kept in rows. The database compares them where it has
//! pgvector; elsewhere each replica holds the vectors of the spaces it is asked in (`place.rs`). Answers of one space have everything in common but the question: whose they are, the
//! persona, the models, the lifetime. So a changed persona or model begins with nothing.

mod place;
mod space;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    BotCache, BotId, ComparedBy, JobId, Likeness, Money, ReservationId, Threshold, TraceId, UserId,
    views::similar::NearBoard,
};
use futures::StreamExt;
use gateway::{
    Answer, CacheHit, CacheKey, CacheScope, ChatRequest, Endpoint, Forward, ForwardBody, ModelKind, Outcome,
    count_tokens,
};
use place::Place;
use repositories::{
    PgConnection, bots, ledger,
    similar::{self as rows, Look, NewAnswer},
};
use serde::Deserialize;
use serde_json::json;
pub(crate) use space::Spaces;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    Actor, Error, Incoming, Services, Subject, Use, Wanted,
    audit::{Target, record},
    calls::{finish_name, millis, try_rows},
};

/// An answer waits no longer than this for a similar one.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longer questions are hardly ever asked twice, in bytes.
const LONGEST_QUESTION: usize = 4000;
/// What is less alike than this is not near.
const NEAR: i32 = 500;
/// Longer bodies hold no one vector.
const MOST_BODY: usize = 1024 * 1024;
/// Of each bot.
const MOST_LOOKS: i64 = 1000;
/// What a page shows.
const SHOWN_LOOKS: i64 = 100;
/// As for calls of programs: what is set aside for longer has been forgotten.
const HELD_LONGER: TimeDelta = TimeDelta::minutes(5);

/// A first question that is to be compared with others.
pub(crate) struct Comparison<'a> {
    services: &'a Services,
    bot: BotId,
    text: &'a str,
    space: CacheKey,
    by: &'a str,
    from: Threshold,
    kept_for: i32,
}

/// What came of comparing a question.
#[derive(Debug)]
pub(crate) struct Looked {
    space: CacheKey,
    vector: Vec<f32>,
    compared_by: ComparedBy,
    kept_for: i32,
    nearest: Option<Nearest>,
}

#[derive(Debug)]
struct Nearest {
    user: UserId,
    question: String,
    likeness: Likeness,
}

impl<'a> Comparison<'a> {
    /// `None` where the bot does not compare, or this is no first question.
    pub(crate) fn new(
        services: &'a Services,
        incoming: &'a Incoming,
        request: &ChatRequest,
        scope: &CacheScope,
        cache: &'a BotCache,
    ) -> Option<Self> {
        let by = cache.similar_by.as_deref()?;
        // Whoever edits a question wants another answer than that to the question before.
        if incoming.text.len() > LONGEST_QUESTION || incoming.replaces.is_some() {
            return None;
        }
        Some(Self {
            services,
            bot: incoming.bot,
            text: &incoming.text,
            space: services.gateway().similarity_space(scope, request, by)?,
            by,
            from: cache.similar_from,
            kept_for: cache.kept_for.seconds(),
        })
    }

    /// An answer that does for this question, if there is one, and what was seen. `None` where it could not be compared in time, which
    /// is nothing that anybody need be told.
    pub(crate) async fn look(&self) -> Option<(Option<gateway::Similar>, Looked)> {
        match tokio::time::timeout(PATIENCE, self.compare()).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "A question could not be compared with others");
                None
            }
            Err(_) => {
                tracing::info!("A question could not be compared with others in time");
                None
            }
        }
    }

    async fn compare(&self) -> Result<Option<(Option<gateway::Similar>, Looked)>, Error> {
        let services = self.services;
        let (vector, place) = futures::future::join(self.embed(), Place::of(services, self.space)).await;
        let (Some(vector), place) = (vector, place?) else {
            return Ok(None);
        };
        let now = services.now();
        let found = place.nearest(services, &vector, now).await?;
        let mut looked = Looked {
            space: self.space,
            vector,
            compared_by: services.db.compared_by(),
            kept_for: self.kept_for,
            nearest: None,
        };
        let Some((id, likeness)) = found.filter(|(_, likeness)| likeness.thousandths() >= NEAR) else {
            return Ok(Some((None, looked)));
        };
        let Some(asked) = rows::get(&mut *services.db.acquire().await?, id, now).await? else {
            return Ok(Some((None, looked)));
        };
        looked.nearest = Some(Nearest {
            user: asked.user,
            question: asked.question,
            likeness,
        });
        let similar = gateway::Similar {
            text: asked.answer,
            provider: asked.provider,
            model_id: asked.model,
        };
        let reaches = likeness >= self.from.likeness();
        Ok(Some((reaches.then_some(similar), looked)))
    }

    /// The question's direction. Whoever stops waiting ends the call; what was used of it is written all the same.
    async fn embed(&self) -> Option<Vec<f32>> {
        let cancel = CancellationToken::new();
        let _leaves = cancel.clone().drop_guard();
        let (tell, vector) = oneshot::channel();
        let errand = Errand {
            services: self.services.clone(),
            bot: self.bot,
            alias: self.by.to_owned(),
            text: self.text.to_owned(),
            trace: crate::current_trace(),
            cancel,
        };
        tokio::spawn(errand.run(tell));
        vector.await.ok().flatten()
    }
}

impl Looked {
    /// Writes what came of it: who was near, and the answer for those who come after.
    pub(crate) async fn note(
        &self,
        tx: &mut PgConnection,
        incoming: &Incoming,
        user: UserId,
        answer: &Answer,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        if let Some(nearest) = &self.nearest {
            let look = Look {
                bot: incoming.bot,
                at: now,
                user,
                question: &incoming.text,
                near_user: nearest.user,
                near_question: &nearest.question,
                likeness: nearest.likeness,
                hit: answer.cached == Some(CacheHit::Semantic),
            };
            rows::note(tx, &look).await?;
        }
        if answer.cached.is_none() && answer.is_whole() {
            let made = NewAnswer {
                bot: incoming.bot,
                space: &self.space,
                user,
                question: &incoming.text,
                vector: &self.vector,
                compared_by: self.compared_by,
                answer: &answer.text,
                provider: &answer.provider,
                model: answer.model_id,
                at: now,
                expires_at: now + TimeDelta::seconds(self.kept_for.into()),
            };
            rows::insert(tx, &made).await?;
        }
        Ok(())
    }

    pub(crate) fn space(&self) -> &CacheKey {
        &self.space
    }
}

/// A call of an embedding model on behalf of a bot: counted on the limits of the model and the deployment, and a line of its own.
struct Errand {
    services: Services,
    bot: BotId,
    alias: String,
    text: String,
    trace: Option<TraceId>,
    cancel: CancellationToken,
}

/// What came of the call.
struct Embedded {
    vector: Option<Vec<f32>>,
    outcome: Outcome,
    call: ReservationId,
    /// Something was set aside for it.
    held: bool,
}

impl Errand {
    async fn run(self, tell: oneshot::Sender<Option<Vec<f32>>>) {
        match self.ask().await {
            Ok(Some(mut made)) => {
                // Whoever asked may have stopped waiting.
                let _ = tell.send(made.vector.take());
                if let Err(error) = self.write(made).await {
                    tracing::warn!(error = %error, "What an embedding has used could not be written");
                }
            }
            // A limit is used up, or the model is gone: the question is answered without.
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "An embedding could not be asked for"),
        }
    }

    async fn ask(&self) -> Result<Option<Embedded>, Error> {
        let gateway = self.services.gateway();
        let Some(offer) = gateway.offer(&self.alias, ModelKind::Embedding) else {
            return Ok(None);
        };
        let call = ReservationId(uuid::Uuid::now_v7());
        let tokens = i64::from(count_tokens(&self.text));
        let subject = Subject {
            model: Some(&self.alias),
            ..Subject::default()
        };
        let wanted = Wanted {
            tokens,
            cost: offer.price.input.per_million(tokens),
            answer: 0,
            least_answer: 0,
            answer_per_million: Money::ZERO,
            images: 0,
        };
        let longest = TimeDelta::from_std(gateway.deadlines().overall).unwrap_or(TimeDelta::hours(1));
        let expires_at = self.services.now() + longest + HELD_LONGER;
        let limits = self.services.limits();
        let Ok(reserved) = limits.reserve(call, &subject, &wanted, expires_at).await? else {
            return Ok(None);
        };
        let body = json!({ "model": self.alias, "input": self.text }).to_string();
        let forward = Forward {
            endpoint: Endpoint::Embeddings,
            alias: self.alias.clone(),
            body: ForwardBody::Json(Bytes::from(body)),
            stream: false,
            bound: None,
            tokens,
            images: 0,
            spoken: 0,
            cache: None,
        };
        let (vector, outcome) = match gateway.forward(forward, &self.cancel).await {
            Ok(mut forwarded) => {
                let mut body = Vec::new();
                while let Some(Ok(piece)) = forwarded.body.next().await {
                    if body.len() + piece.len() > MOST_BODY {
                        break;
                    }
                    body.extend_from_slice(&piece);
                }
                drop(forwarded.body);
                let outcome = forwarded.outcome.await;
                let outcome = outcome.map_err(|_| Error::Internal("a call without an outcome"))?;
                (vector(&body), outcome)
            }
            Err(refused) => (None, refused.outcome),
        };
        Ok(Some(Embedded {
            vector,
            outcome,
            call,
            held: reserved.held,
        }))
    }

    async fn write(&self, made: Embedded) -> Result<(), Error> {
        let Embedded {
            outcome, call, held, ..
        } = made;
        let now = self.services.now();
        let used = Use {
            // No message of anybody.
            messages: 0,
            tokens: outcome.usage.prompt_tokens + outcome.usage.completion_tokens,
            money: outcome.cost.nanos(),
            images: 0,
        };
        let tries = try_rows(&outcome.tries);
        let finish = finish_name(&outcome.finish);
        let line = ledger::Usage {
            job: JobId(call.0),
            at: now,
            user: None,
            bot: self.bot,
            conversation: None,
            provider: &outcome.provider,
            model: tries.last().map_or(&self.alias, |last| &last.model),
            prompt_tokens: outcome.usage.prompt_tokens,
            completion_tokens: outcome.usage.completion_tokens,
            cached_tokens: outcome.usage.cached_tokens,
            reported: outcome.reported,
            cost: outcome.cost,
            attempts: i32::try_from(tries.len()).unwrap_or(i32::MAX),
            finish: &finish,
            first_token_ms: outcome.first_token.map(millis),
            total_ms: millis(outcome.total),
            felt_ms: millis(outcome.total),
            alias: &self.alias,
            model_id: outcome.model_id,
            reasoning_tokens: outcome.usage.reasoning_tokens,
            audio_input_tokens: outcome.usage.audio_input_tokens,
            audio_output_tokens: outcome.usage.audio_output_tokens,
            images: outcome.usage.images,
            price: outcome.price,
            tries: &tries,
            cache: "",
            error_code: outcome.failure.as_ref().map(|failure| failure.code().as_str()),
            trace: self.trace,
        };
        ledger::insert(&mut *self.services.db.acquire().await?, &line).await?;
        if held {
            self.services.limits().settle(&[(call, used)]).await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<f32>,
}

/// The direction that a body tells, of unit length; `None` of nonsense.
fn vector(body: &[u8]) -> Option<Vec<f32>> {
    let told: Embeddings = serde_json::from_slice(body).ok()?;
    let mut vector = told.data.into_iter().next()?.embedding;
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if !length.is_normal() {
        return None;
    }
    for number in &mut vector {
        *number /= length;
    }
    Some(vector)
}

/// Similar questions, for staff and for the clock.
pub struct Similar(pub(crate) Services);

impl Similar {
    /// What was compared of late. Questions are words of people: reading them is recorded as reading a conversation is.
    pub async fn board(&self, actor: &Actor, bot: BotId) -> Result<Option<NearBoard>, Error> {
        let mut tx = self.0.db.begin().await?;
        let Some(known) = bots::get(&mut tx, bot).await? else {
            return Ok(None);
        };
        let looks = rows::looks(&mut tx, bot, SHOWN_LOOKS).await?;
        if !looks.is_empty() {
            let mut users: Vec<_> = looks.iter().flat_map(|look| [look.user.id, look.near_user]).collect();
            users.sort_unstable();
            users.dedup();
            let users: Vec<String> = users.iter().map(ToString::to_string).collect();
            let target = Target {
                kind: "bot",
                id: bot.to_string(),
                name: &known.name,
            };
            let what = json!({ "users": users, "messages": looks.len() });
            record(&self.0, &mut tx, actor, "conversation.read", target, None, Some(what)).await?;
            tx.commit().await.map_err(repositories::Error::from)?;
        }
        Ok(Some(NearBoard {
            now: self.0.now(),
            bot,
            bot_name: known.name,
            cache: known.cache,
            compared_by: self.0.db.compared_by(),
            looks,
        }))
    }

    /// Forgets what holds no longer or is too much.
    pub async fn tidy(&self) -> Result<(), Error> {
        let mut db = self.0.db.acquire().await?;
        rows::prune(&mut db, space::MOST, MOST_LOOKS, self.0.now()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_of_unit_length_and_nonsense_is_none() {
        assert_eq!(vector(br#"{"data":[{"embedding":[3,4]}]}"#), Some(vec![0.6, 0.8]));
        for nonsense in [
            "",
            "{}",
            r#"{"data":[]}"#,
            r#"{"data":[{"embedding":[]}]}"#,
            r#"{"data":[{"embedding":[0,0]}]}"#,
        ] {
            assert_eq!(vector(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
