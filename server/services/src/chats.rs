//! One message of a user and its answer: who is it, may they, what does the model see, and what is written when it is over.
//!
//! The order that makes it safe: a reservation is committed before the provider is asked; answer, usage, settlement and what is
//! to be sent are committed together after it, under the job's lease; only then is anything final sent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    BotCache, BotId, ErrorCode, JobId, MessageId, Sharing, UserId,
    views::{Author, BotTransport, LimitBar, RichText},
};
use gateway::{
    Answer, CacheHit, CacheScope, ChatRequest, Finish, Model, Role, TOKENS_PER_MESSAGE, Turn, count_tokens,
    estimate_prompt,
};
use repositories::{
    PgConnection, Transaction,
    counters::{self, SetAside, Use},
    deliveries::{self, KnownIds, Owner, Part},
    jobs, ledger,
    messages::{self, Remembered},
    people,
    people::Known,
    updates::{self, Asked},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    Claimed, Error, Services,
    calls::{self, millis},
    limits::{self, Refusal, Subject, Wanted},
    queue::DONE_KEPT_HOURS,
    similar::{Comparison, Looked},
};

/// The longest answer asked for; what is reserved on every budget while it is made.
const LONGEST_ANSWER: u32 = 4096;
/// An answer cut shorter than this by a nearly used-up budget would be of no use.
const SHORTEST_ANSWER: u32 = 64;
/// The most of the past that a model is shown, in tokens and in messages: more costs the user without helping.
const HISTORY_TOKENS: u32 = 16_000;
const HISTORY_MESSAGES: i64 = 200;

/// The most that one summary of late messages stands for.
const MOST_WAITING: i64 = 10_000;

/// Pauses before an answer is stored once more, while its lease holds; getting a connection waits up to five seconds by itself.
const OUTAGE: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1500),
];

const DEFAULT_PERSONA: &str = "You are a helpful assistant in a chat. Answer in the language of the user, briefly and to the point. Markdown is shown.";

/// A message as intake understood it.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub bot: BotId,
    pub transport: BotTransport,
    pub user_external_id: i64,
    pub user_name: String,
    pub username: Option<String>,
    pub language: Option<String>,
    pub chat_external_id: i64,
    /// `private`, `group`…
    pub chat_kind: String,
    pub chat_title: String,
    pub thread_id: i64,
    pub message_id: i64,
    pub text: String,
    pub received_at: DateTime<Utc>,
    /// An edited message is asked anew: the job whose answer is to be replaced.
    pub replaces: Option<JobId>,
}

impl Incoming {
    /// Bot and chat, under which deliveries are kept.
    pub fn chat_key(&self) -> String {
        format!("{}/{}", self.bot, self.chat_external_id)
    }

    /// The lane in which messages of this conversation run.
    pub fn lane(&self) -> String {
        crate::lane(self.bot, self.chat_external_id, self.thread_id)
    }
}

/// Whether a question goes to the model.
#[derive(Debug)]
pub enum Begin {
    Ask(Box<Question>),
    Refused(Refusal),
    /// The job is another worker's now.
    LeaseLost,
}

/// A question with its budget set aside.
#[derive(Debug)]
pub struct Question {
    pub request: ChatRequest,
    asked_at: DateTime<Utc>,
    question_tokens: u32,
    /// The chosen model that the plan does not list, if the user has to be told.
    instead_of: Option<String>,
    /// What came of comparing it with others.
    looked: Option<Looked>,
}

impl Question {
    /// Of a choice that the plan no longer allows, if this answer has to say so: what was chosen, and what answers in its place.
    pub fn instead_of(&self) -> Option<(&str, &str)> {
        Some((self.instead_of.as_deref()?, &self.request.model))
    }
}

/// What else a command changes, in the same transaction as its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// `/new`
    Renew,
    /// `/model`
    Model(String),
    /// Requests that wait in the same lane and are answered by this reply as well.
    Absorb(Vec<Absorbed>),
}

/// A request that is answered together with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absorbed {
    pub job: JobId,
    /// Who asked, as the transport knows them: in a group perhaps somebody else.
    pub user_external_id: i64,
    pub text: String,
}

/// A reply that no model made.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    pub text: &'a str,
    pub parts: &'a [RichText],
    pub code: Option<ErrorCode>,
    pub change: Change,
}

/// Conversations as the bot runtime drives them.
pub struct Chats(pub(crate) Services);

impl Chats {
    /// Finds or makes the user, the chat and its conversation.
    pub async fn meet(&self, incoming: &Incoming) -> Result<Known, Error> {
        let sender = people::Sender {
            transport: incoming.transport,
            external_id: incoming.user_external_id,
            name: &incoming.user_name,
            username: incoming.username.as_deref(),
            language: incoming.language.as_deref(),
        };
        let place = people::Place {
            bot: incoming.bot,
            chat_external_id: incoming.chat_external_id,
            kind: if incoming.transport == BotTransport::Browser {
                "browser"
            } else {
                &incoming.chat_kind
            },
            title: &incoming.chat_title,
            thread_id: incoming.thread_id,
        };
        Ok(people::meet(&mut *self.0.db.acquire().await?, &sender, &place, self.0.now()).await?)
    }

    /// What the user may choose from: the models that are shown, or those of the plan where it lists some.
    pub fn models(&self, known: &Known) -> Vec<String> {
        let gateway = self.0.gateway();
        if known.plan_models.is_empty() {
            return gateway.models().iter().map(|model| model.name.clone()).collect();
        }
        let names = gateway.chat_names().into_iter();
        names.filter(|name| known.may_use(name)).collect()
    }

    /// The model in use: that of the conversation, of the bot, or the default. One that is no longer offered, or that the plan does
    /// not list, counts as unset; with nothing else left it is the first that the plan lists. `None`: none of those is offered.
    pub fn model(&self, known: &Known, bot_model: Option<&str>) -> Option<Arc<Model>> {
        let gateway = self.0.gateway();
        let allowed = |name: &str| gateway.model(name).filter(|_| known.may_use(name));
        let set = known.model.as_deref().and_then(allowed);
        let set = set.or_else(|| allowed(bot_model?));
        if known.plan_models.is_empty() {
            return Some(set.unwrap_or_else(|| gateway.default_model()));
        }
        // The default one is the first of all.
        set.or_else(|| gateway.chat_names().iter().find_map(|name| allowed(name)))
    }

    /// Checks rate and budgets, sets the budget aside and builds what the model sees. A job that is run again finds the
    /// reservation it made before.
    pub async fn begin(
        &self,
        job: &Claimed,
        incoming: &Incoming,
        known: &Known,
        persona: &str,
        bot_model: Option<&str>,
    ) -> Result<Begin, Error> {
        let now = self.0.now();
        let Some(model) = self.model(known, bot_model) else {
            return Ok(Begin::Refused(Refusal {
                code: ErrorCode::NoModel,
                limit: None,
            }));
        };
        let question_tokens = count_tokens(&incoming.text);
        let most = model
            .max_answer_tokens
            .min(LONGEST_ANSWER)
            .min(model.context_tokens / 2);
        let alone = estimate_prompt(&turns(persona, Vec::new(), &incoming.text));
        let Some(room) = (model.context_tokens - most).checked_sub(alone) else {
            return Ok(Begin::Refused(Refusal {
                code: ErrorCode::TooLong,
                limit: None,
            }));
        };
        let mut tx = self.0.db.begin().await?;
        let instead_of = match known.model.as_deref().filter(|chosen| !known.may_use(chosen)) {
            Some(chosen) if !people::was_told(&mut tx, known.chat, known.user, chosen).await? => {
                Some(chosen.to_owned())
            }
            _ => None,
        };
        let history = messages::history(
            &mut tx,
            known.conversation,
            i64::from(room.min(HISTORY_TOKENS)),
            i64::from(TOKENS_PER_MESSAGE),
            HISTORY_MESSAGES,
            incoming.replaces,
        )
        .await?;
        // Stored counts, not new ones: counting the whole past again would cost more than the rest of this.
        let remembered: u32 = history
            .iter()
            .map(|message| u32::try_from(message.tokens).unwrap_or(0) + TOKENS_PER_MESSAGE)
            .sum();
        // A tenth more than counted: providers count a little differently, and a reservation must not be too small.
        let prompt = alone.saturating_add(remembered).saturating_mul(11) / 10;
        let turns = turns(persona, history, &incoming.text);
        let reserved = match counters::reservation(&mut tx, job.id, job.token).await? {
            SetAside::LeaseLost => return Ok(Begin::LeaseLost),
            SetAside::Tokens(tokens) => Ok(u32::try_from(tokens - i64::from(prompt))
                .unwrap_or(0)
                .max(SHORTEST_ANSWER)
                .min(most)),
            SetAside::Nothing => self.reserve(tx, job, incoming, known, &model, prompt, most).await?,
        };
        let max_tokens = match reserved {
            Ok(max_tokens) => max_tokens,
            Err(refusal) => return Ok(Begin::Refused(refusal)),
        };
        let request = ChatRequest {
            model: model.name.clone(),
            messages: turns,
            max_tokens,
            user: known.user.to_string(),
        };
        Ok(Begin::Ask(Box::new(Question {
            request,
            asked_at: now,
            question_tokens,
            instead_of,
            looked: None,
        })))
    }

    /// Sets the budget of one answer aside, and commits that: the whole of it, or what is left when that still makes a useful answer.
    /// The number is the tokens the answer may have.
    #[allow(clippy::too_many_arguments)] // all that an answer depends on
    async fn reserve(
        &self,
        mut tx: Transaction,
        job: &Claimed,
        incoming: &Incoming,
        known: &Known,
        model: &Model,
        prompt: u32,
        most: u32,
    ) -> Result<Result<u32, Refusal>, Error> {
        let now = self.0.now();
        let subject = Subject {
            user: Some(known.user),
            bot: Some(incoming.bot),
            model: Some(&model.name),
            ..Subject::default()
        };
        let bounds = limits::bounds(&mut tx, &subject, now).await?;
        let wanted = Wanted {
            tokens: prompt.into(),
            cost: model.input_per_million.per_million(prompt.into()),
            answer: most,
            least_answer: SHORTEST_ANSWER,
            answer_per_million: model.output_per_million,
            images: 0,
        };
        let call = job.id.into();
        let mut answer = limits::set_aside(&mut tx, call, subject.user, &bounds, &wanted, None, now).await?;
        if answer.is_err() {
            tx.rollback().await.map_err(repositories::Error::from)?;
            if !limits::spare(&self.0, &subject.pairs()).await {
                return Ok(answer);
            }
            tx = self.0.db.begin().await?;
            let bounds = limits::bounds(&mut tx, &subject, now).await?;
            answer = limits::set_aside(&mut tx, call, subject.user, &bounds, &wanted, None, now).await?;
        }
        let answer = match answer {
            Ok(answer) => answer,
            refused => return Ok(refused),
        };
        tx.commit().await.map_err(repositories::Error::from)?;
        // Rates come last: a message that a budget refuses takes nothing of the minute. And after the commit: nobody is to wait for a
        // row while somebody waits for Redis.
        let admitted = limits::admit(&self.0, call, &bounds, incoming.received_at, now).await?;
        Ok(admitted.map(|()| answer))
    }

    /// Asks the model, or gives an answer that was given before, where the bot is set so. `on_text` is handed the whole text so far
    /// whenever there is more of it.
    pub async fn answer(
        &self,
        incoming: &Incoming,
        known: &Known,
        question: &mut Question,
        cache: &BotCache,
        cancel: &CancellationToken,
        on_text: impl FnMut(&str) + Send,
    ) -> Answer {
        let request = &question.request;
        let tenant = match cache.sharing {
            Sharing::Off => None,
            Sharing::User => Some(format!("bot {} user {}", incoming.bot, known.user)),
            Sharing::Shared => Some(format!("bot {}", incoming.bot)),
        };
        let lifetime = Duration::from_secs(u64::try_from(cache.kept_for.seconds()).unwrap_or(0));
        let scope = tenant.map(|tenant| CacheScope::new(tenant, lifetime));
        let compare = scope
            .as_ref()
            .and_then(|scope| Comparison::new(&self.0, incoming, request, scope, cache));
        let mut looked = None;
        let similar = async {
            let (found, what) = compare?.look().await?;
            looked = Some(what);
            found
        };
        let gateway = self.0.gateway();
        let answer = gateway
            .answer_cached(request, scope.as_ref(), similar, cancel, on_text)
            .await;
        question.looked = looked;
        answer
    }

    /// Writes an answer: both messages, the usage, the settlement of the reservation, the failure if there was one, and what is
    /// to be sent. False when the lease has been lost: then nothing is written and nothing may be sent.
    ///
    /// An answer was waited and paid for, so a short absence of the database does not lose it.
    pub async fn settle(
        &self,
        job: &Claimed,
        incoming: &Incoming,
        known: &Known,
        question: &Question,
        answer: &Answer,
        parts: &[RichText],
    ) -> Result<bool, Error> {
        let settle = |again| self.settle_once(job, incoming, known, question, answer, parts, again);
        let mut settled = settle(false).await;
        for pause in OUTAGE {
            match &settled {
                Err(Error::Database(error)) if error.is_outage() => {
                    tracing::warn!(job.id = %job.id, error = %error, "An answer could not be stored, trying again");
                }
                _ => break,
            }
            tokio::time::sleep(pause).await;
            settled = settle(true).await;
        }
        settled
    }

    /// `again`: an attempt before this one may have been committed without our learning it.
    #[allow(clippy::too_many_arguments)] // those of `settle`, and one
    async fn settle_once(
        &self,
        job: &Claimed,
        incoming: &Incoming,
        known: &Known,
        question: &Question,
        answer: &Answer,
        parts: &[RichText],
        again: bool,
    ) -> Result<bool, Error> {
        let now = self.0.now();
        let code = answer.failure.as_ref().map(gateway::GatewayError::code);
        let cause = answer.failure.as_ref().map(gateway::GatewayError::cause);
        let came = !answer.text.trim().is_empty();
        let finish = finish_name(&answer.finish);
        let tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens;
        let mut tx = self.0.db.begin().await?;
        if !jobs::hold(&mut tx, job.id, job.token).await? {
            return Ok(false);
        }
        // A message that got no answer is given back; one that was stopped or cut has been answered as far as it went.
        let used = Use {
            messages: i64::from(came),
            tokens,
            money: answer.cost.nanos(),
            images: 0,
        };
        let settled = counters::settle(&mut tx, job.id.into(), used, now).await?;
        if !settled.done {
            if again && ledger::has(&mut tx, job.id).await? {
                return Ok(true);
            }
            return Err(Error::Internal("the reservation of a running answer is gone"));
        }
        let tries = calls::try_rows(&answer.tries);
        let line = ledger::Usage {
            job: job.id,
            at: now,
            user: Some(known.user),
            bot: incoming.bot,
            conversation: Some(known.conversation),
            provider: &answer.provider,
            model: tries.last().map_or(&question.request.model, |last| &last.model),
            prompt_tokens: answer.usage.prompt_tokens,
            completion_tokens: answer.usage.completion_tokens,
            cached_tokens: answer.usage.cached_tokens,
            reported: answer.usage_reported,
            cost: answer.cost,
            attempts: i32::try_from(answer.attempts).unwrap_or(i32::MAX),
            finish,
            first_token_ms: answer.first_token.map(millis),
            total_ms: millis(answer.total),
            felt_ms: (now - incoming.received_at).num_milliseconds(),
            alias: &question.request.model,
            model_id: answer.model_id,
            reasoning_tokens: answer.usage.reasoning_tokens,
            audio_input_tokens: answer.usage.audio_input_tokens,
            audio_output_tokens: answer.usage.audio_output_tokens,
            images: answer.usage.images,
            price: answer.price,
            tries: &tries,
            cache: answer.cached.map_or("", CacheHit::name),
            error_code: code.map(ErrorCode::as_str),
            trace: crate::current_trace(),
        };
        ledger::insert(&mut tx, &line).await?;
        let code_text = code.map(ErrorCode::as_str);
        let asked = messages::NewMessage {
            id: MessageId(job.id.0),
            at: question.asked_at,
            author: Author::User,
            user: Some(known.user),
            text: &incoming.text,
            tokens: i32::try_from(question.question_tokens).unwrap_or(i32::MAX),
            in_context: came,
            error_code: None,
            error_cause: None,
        };
        let answered = messages::NewMessage {
            id: MessageId(uuid::Uuid::now_v7()),
            at: now.max(question.asked_at + TimeDelta::microseconds(1)),
            author: Author::Bot,
            user: None,
            text: &answer.text,
            tokens: i32::try_from(count_tokens(&answer.text)).unwrap_or(i32::MAX),
            in_context: came,
            error_code: code_text,
            error_cause: cause.as_deref(),
        };
        messages::insert(&mut tx, known.conversation, job.id, &[asked, answered]).await?;
        if let Some(code) = code_text {
            self.fail(&mut tx, job, incoming, known, code, cause.as_deref()).await?;
        }
        if let Some(chosen) = &question.instead_of {
            people::told(&mut tx, known.chat, known.user, chosen).await?;
        }
        if let Some(replaced) = incoming.replaces {
            messages::forget(&mut tx, replaced).await?;
            deliveries::take_over(&mut tx, replaced, job.id).await?;
        }
        if let Some(looked) = &question.looked {
            looked.note(&mut tx, incoming, known.user, answer, now).await?;
        }
        deliveries::store(&mut tx, job.id, &incoming.chat_key(), parts).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        if let Some(looked) = &question.looked {
            self.0.similar.changed(looked);
        }
        limits::note(&settled.passed);
        metrics::counter!("botdeck_answers_total", "outcome" => finish).increment(1);
        metrics::histogram!("botdeck_answer_seconds").record((now - incoming.received_at).as_seconds_f64());
        Ok(true)
    }

    /// Writes a reply that no model made (a command's, or a refusal) together with what it changes. False when the lease has
    /// been lost.
    pub async fn reply(
        &self,
        job: &Claimed,
        incoming: &Incoming,
        known: &Known,
        reply: Reply<'_>,
    ) -> Result<bool, Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        if let Change::Absorb(_) = reply.change {
            jobs::lock_lane(&mut tx, job.lane.as_deref()).await?;
        }
        if !jobs::hold(&mut tx, job.id, job.token).await? {
            return Ok(false);
        }
        let note = |id: uuid::Uuid, user: Option<UserId>, author, text| messages::NewMessage {
            id: MessageId(id),
            at: if author == Author::User {
                now
            } else {
                now + TimeDelta::microseconds(1)
            },
            author,
            user,
            text,
            tokens: 0,
            in_context: false,
            error_code: None,
            error_cause: None,
        };
        let asked = note(job.id.0, Some(known.user), Author::User, incoming.text.as_str());
        let mut answered = note(uuid::Uuid::now_v7(), None, Author::Bot, reply.text);
        let code = reply.code.map(ErrorCode::as_str);
        answered.error_code = code;
        let mut notes = vec![asked];
        if let Change::Absorb(waiting) = &reply.change {
            let senders: Vec<i64> = waiting.iter().map(|one| one.user_external_id).collect();
            let users: HashMap<i64, UserId> = people::by_external_ids(&mut tx, incoming.transport, &senders)
                .await?
                .into_iter()
                .collect();
            notes.extend(waiting.iter().map(|one| {
                let user = users.get(&one.user_external_id).copied();
                note(one.job.0, user, Author::User, &one.text)
            }));
        }
        notes.push(answered);
        messages::insert(&mut tx, known.conversation, job.id, &notes).await?;
        if let Some(code) = code {
            self.fail(&mut tx, job, incoming, known, code, None).await?;
        }
        match &reply.change {
            Change::None => {}
            Change::Renew => people::renew(&mut tx, known.conversation, now).await?,
            Change::Model(model) => {
                people::set_model(&mut tx, known.conversation, model).await?;
                people::forget_told(&mut tx, known.chat).await?;
            }
            Change::Absorb(waiting) => {
                let ids: Vec<JobId> = waiting.iter().map(|one| one.job).collect();
                updates::absorb(&mut tx, job.id, &ids).await?;
            }
        }
        deliveries::store(&mut tx, job.id, &incoming.chat_key(), reply.parts).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(true)
    }

    async fn fail(
        &self,
        tx: &mut PgConnection,
        job: &Claimed,
        incoming: &Incoming,
        known: &Known,
        code: &str,
        cause: Option<&str>,
    ) -> Result<(), Error> {
        metrics::counter!("botdeck_errors_total", "code" => code.to_owned()).increment(1);
        let failure = ledger::Failure {
            at: self.0.now(),
            code,
            cause,
            user: Some(known.user),
            bot: Some(incoming.bot),
            conversation: Some(known.conversation),
            job: Some(job.id),
        };
        Ok(ledger::insert_failure(tx, &failure).await?)
    }

    /// What earlier attempts at the job have left: stored to be sent, if they got that far, and perhaps sent.
    pub async fn resume(&self, job: JobId) -> Result<Vec<Part>, Error> {
        Ok(deliveries::resume(&mut *self.0.db.acquire().await?, job, DONE_KEPT_HOURS).await?)
    }

    /// Notes that of the parts without an id none was sent: the next attempt need not look for them.
    pub async fn unsent(&self, job: &Claimed) -> Result<(), Error> {
        Ok(deliveries::unsent(&mut *self.0.db.acquire().await?, job.id, job.token).await?)
    }

    /// Notes the ids that a part turned out not to have.
    pub async fn tried(&self, job: JobId, part: usize, ids: &[i64], next: &[i64]) -> Result<(), Error> {
        let part = i32::try_from(part).map_err(|_| Error::Internal("too many parts"))?;
        Ok(deliveries::tried(&mut *self.0.db.acquire().await?, job, part, ids, next).await?)
    }

    /// Notes the message that says that there will be no answer.
    pub async fn apologised(&self, job: JobId, chat_key: &str, message_id: i64) -> Result<(), Error> {
        Ok(deliveries::apologised(&mut *self.0.db.acquire().await?, job, chat_key, message_id).await?)
    }

    /// What is stored to be sent.
    pub async fn parts(&self, job: JobId) -> Result<Vec<Part>, Error> {
        Ok(deliveries::load(&mut *self.0.db.acquire().await?, job).await?)
    }

    /// Notes that a preview is about to be sent as message number `part` of the answer.
    pub async fn begin_preview(&self, job: &Claimed, chat_key: &str, part: usize) -> Result<(), Error> {
        let part = i32::try_from(part).map_err(|_| Error::Internal("too many parts"))?;
        let mut db = self.0.db.acquire().await?;
        Ok(deliveries::begin_preview(&mut db, job.id, job.token, chat_key, part).await?)
    }

    /// Notes the ids under which messages arrived, from part `first` on.
    pub async fn sent(&self, job: &Claimed, first: usize, message_ids: &[i64]) -> Result<(), Error> {
        let first = i32::try_from(first).map_err(|_| Error::Internal("too many parts"))?;
        let mut db = self.0.db.acquire().await?;
        Ok(deliveries::sent(&mut db, job.id, job.token, first, message_ids).await?)
    }

    /// Where a message of this job may be whose id was never learnt. `ago`: for how long the job cannot have sent it any more.
    pub async fn known_ids(&self, job: JobId, incoming: &Incoming, ago: Duration) -> Result<KnownIds, Error> {
        let mut db = self.0.db.acquire().await?;
        let (bot, question) = (incoming.bot, incoming.message_id);
        let ago = ago.as_secs_f64();
        Ok(deliveries::known_ids(&mut db, job, bot, &incoming.chat_key(), question, ago).await?)
    }

    /// Whose a message of the chat is, if it is not this job's.
    pub async fn owner(&self, job: JobId, chat_key: &str, message_id: i64) -> Result<Owner, Error> {
        Ok(deliveries::owner(&mut *self.0.db.acquire().await?, job, chat_key, message_id).await?)
    }

    /// Those of these messages of a chat that are another job's, and what they are to say.
    pub async fn of_others(&self, job: JobId, chat_key: &str, ids: &[i64]) -> Result<Vec<(i64, RichText)>, Error> {
        Ok(deliveries::of_others(&mut *self.0.db.acquire().await?, job, chat_key, ids).await?)
    }

    /// The user blocked the bot or it was thrown out (`closed`), or came back.
    pub async fn set_closed(&self, bot: BotId, chat_external_id: i64, closed: bool) -> Result<(), Error> {
        let at = closed.then(|| self.0.now());
        Ok(people::set_chat_closed(&mut *self.0.db.acquire().await?, bot, chat_external_id, at).await?)
    }

    /// The updates that a job stands for beside its own.
    pub async fn other_parts(&self, job: JobId) -> Result<Vec<Value>, Error> {
        Ok(updates::parts(&mut *self.0.db.acquire().await?, job).await?)
    }

    /// What a model was asked by a message that has now been edited, and the request as it is now, one update for each of its
    /// messages. `None` when no model was asked.
    pub async fn edited(&self, incoming: &Incoming) -> Result<Option<(Asked, Vec<Value>)>, Error> {
        let mut db = self.0.db.acquire().await?;
        let (bot, chat, message) = (incoming.bot, incoming.chat_external_id, incoming.message_id);
        let Some(asked) = updates::asked(&mut db, bot, chat, message).await? else {
            return Ok(None);
        };
        Ok(Some((asked, updates::newest(&mut db, bot, chat, message).await?)))
    }

    /// The messages that wait behind the running one.
    pub async fn waiting(&self, lane: &str) -> Result<Vec<(JobId, Value)>, Error> {
        Ok(updates::waiting(&mut *self.0.db.acquire().await?, lane, MOST_WAITING).await?)
    }

    /// A group has become a supergroup: it goes on under the new id.
    pub async fn moved(&self, bot: BotId, from: i64, to: i64) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        people::move_chat(&mut tx, bot, from, to, self.0.now()).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        tracing::info!(bot.id = %bot, "A group of bot {bot} has become a supergroup");
        Ok(())
    }

    /// Somebody wrote at `written_at` in a chat that was closed: it is open again, unless it was closed after that (false).
    pub async fn reopen(&self, bot: BotId, chat_external_id: i64, written_at: DateTime<Utc>) -> Result<bool, Error> {
        Ok(people::reopen_chat(&mut *self.0.db.acquire().await?, bot, chat_external_id, written_at).await?)
    }

    /// The user's limits with what is used of them.
    pub async fn usage(&self, known: &Known) -> Result<Vec<LimitBar>, Error> {
        limits::bars(&self.0, &mut *self.0.db.acquire().await?, known.user, &[], false).await
    }
}

fn turns(persona: &str, history: Vec<Remembered>, question: &str) -> Vec<Turn> {
    let persona = if persona.trim().is_empty() {
        DEFAULT_PERSONA
    } else {
        persona
    };
    let mut turns = vec![Turn {
        role: Role::System,
        text: persona.to_owned(),
    }];
    turns.extend(history.into_iter().map(|message| {
        let role = if message.author == Author::User {
            Role::User
        } else {
            Role::Assistant
        };
        Turn {
            role,
            text: message.text,
        }
    }));
    turns.push(Turn {
        role: Role::User,
        text: question.to_owned(),
    });
    turns
}

fn finish_name(finish: &Finish) -> &'static str {
    match finish {
        Finish::Complete(word) if word == "length" => "length",
        Finish::Complete(word) if word == "content_filter" => "content_filter",
        Finish::Complete(_) => "stop",
        Finish::Stopped => "stopped",
        Finish::Cut => "cut",
        Finish::Failed => "failed",
    }
}
