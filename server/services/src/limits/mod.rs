//! Limits that hold: what bounds a call, what it sets aside before it is made, and what is counted of it afterwards. Bots and the API
//! go the same way; nothing here knows of jobs or HTTP.
//!
//! Several limits apply to one call, and all must hold: those of the user (plan, own limit, boost), API key, bot, model and the whole
//! deployment. Requests per minute are a rate (`rate.rs`); everything else is a budget, taken by one statement or not at all.

mod effect;
mod headroom;
mod lease;
mod sheet;
mod staff;
mod together;

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
pub use domain::LimitOwner;
use domain::{ApiKeyId, BotId, ErrorCode, LimitKind, Measure, Money, ReservationId, Scope, UserId};
pub(crate) use headroom::NoLimits;
pub use headroom::{Headroom, Refused};
pub(crate) use lease::{Leases, spare};
pub use repositories::counters::Use;
use repositories::{
    PgConnection,
    counters::{self, Bound, Claim},
};
pub(crate) use sheet::{bars, shared_bars};
pub use staff::LimitSetting;
pub(crate) use staff::{Current, recorded};
pub(crate) use together::Lanes;

use together::{Admitted, Wish};
use uuid::Uuid;

use crate::{Error, Services, calls, rate::Rate};

/// Who and what a call is counted for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    pub user: Option<UserId>,
    pub key: Option<ApiKeyId>,
    pub bot: Option<BotId>,
    /// The name by which it is asked for.
    pub model: Option<&'a str>,
}

impl Subject<'_> {
    pub(crate) fn pairs(&self) -> Vec<(Scope, String)> {
        let key = self.key.map(|id| (Scope::ApiKey, id.to_string()));
        let bot = self.bot.map(|id| (Scope::Bot, id.to_string()));
        let model = self.model.map(|name| (Scope::Model, name.to_owned()));
        let deployment = Some((Scope::Deployment, String::new()));
        [key, bot, model, deployment].into_iter().flatten().collect()
    }
}

/// The most that a call can use, as far as that can be told before.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// What is there before the answer: prompt, input.
    pub tokens: i64,
    /// What these cost, and images and the like with them.
    pub cost: Money,
    /// The longest answer, and the shortest that would be of any use, in tokens. Equal: it is not to be shortened.
    pub answer: u32,
    pub least_answer: u32,
    /// Price of the answer.
    pub answer_per_million: Money,
    pub images: i64,
}

/// A call that was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// By which it is settled: for a program that makes many calls another than the one it came with.
    pub call: ReservationId,
    /// The tokens that its answer may have.
    pub answer: u32,
    /// Something was set aside, and has to be settled.
    pub held: bool,
    /// What is left of the limits that apply to it.
    pub room: Vec<Headroom>,
}

/// Why a message is not answered by a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    /// The limit that is used up. Of several it is the one that lasts longest.
    pub limit: Option<Reached>,
}

/// A limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub scope: Scope,
    pub kind: LimitKind,
    /// In the unit of the kind.
    pub amount: i64,
    /// When there is more; `None` for a total.
    pub resets_at: Option<DateTime<Utc>>,
}

impl Refusal {
    pub(crate) fn reached(bound: &Bound, resets_at: Option<DateTime<Utc>>) -> Self {
        Self {
            code: bound.kind.code_of(bound.scope),
            limit: Some(Reached {
                scope: bound.scope,
                kind: bound.kind,
                amount: bound.cap.unwrap_or(0),
                resets_at,
            }),
        }
    }

    /// Of limits that are used up the one that lasts longest: whoever waits for it waits for the others as well.
    fn longest<'a>(bounds: impl Iterator<Item = &'a Bound>) -> Option<Self> {
        // On the last day of a month both end at once, and it is the month that is used up.
        let ends = |bound: &&Bound| {
            (
                bound.resets_at.unwrap_or(DateTime::<Utc>::MAX_UTC),
                Reverse(bound.starts_at),
            )
        };
        let longest = bounds.max_by_key(ends);
        longest.map(|bound| Self::reached(bound, bound.resets_at))
    }
}

/// Limits, for calls that no job stands behind and for staff.
pub struct Limits(pub(crate) Services);

impl Limits {
    /// Sets aside what a call can use at most, until it is settled or `expires_at` has come. Rates come last, so that a call that a
    /// budget refuses takes nothing of them; and after the commit, since nobody is to wait for a row while somebody waits for Redis.
    pub async fn reserve(
        &self,
        call: ReservationId,
        subject: &Subject<'_>,
        wanted: &Wanted,
        expires_at: DateTime<Utc>,
    ) -> Result<Result<Reserved, Refusal>, Error> {
        let free = Reserved {
            call,
            answer: wanted.answer,
            held: false,
            room: Vec::new(),
        };
        if self.0.no_limits.knows(subject) {
            return Ok(Ok(free));
        }
        let admitted = match subject.user {
            Some(_) => {
                let first = self.reserve_alone(call, subject, wanted, expires_at).await?;
                if first.is_err() && spare(&self.0, &subject.pairs()).await {
                    self.reserve_alone(call, subject, wanted, expires_at).await?
                } else {
                    first
                }
            }
            None => {
                let wish = Wish {
                    call,
                    pairs: subject.pairs(),
                    wanted: *wanted,
                    expires_at,
                };
                lease::admit(&self.0, subject.key, wish).await?
            }
        };
        let Admitted {
            call,
            answer,
            held,
            bounds,
        } = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if bounds.is_empty() {
            self.0.no_limits.note(subject);
            return Ok(Ok(free));
        }
        let now = self.0.now();
        if let Err(refusal) = admit(&self.0, call, &bounds, now, now).await? {
            return Ok(Err(refusal));
        }
        Ok(Ok(Reserved {
            call,
            answer,
            held,
            room: headroom::left(&self.0, &bounds, wanted.tokens + i64::from(answer), now).await,
        }))
    }

    /// The same for a user, whose windows lie elsewhere.
    async fn reserve_alone(
        &self,
        call: ReservationId,
        subject: &Subject<'_>,
        wanted: &Wanted,
        expires_at: DateTime<Utc>,
    ) -> Result<Result<Admitted, Refusal>, Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let bounds = bounds(&mut tx, subject, now).await?;
        let answer = match set_aside(&mut tx, call, subject.user, &bounds, wanted, Some(expires_at), now).await? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(Ok(Admitted {
            call,
            answer,
            // A user has windows in any case.
            held: true,
            bounds,
        }))
    }

    /// Counts what calls have really used and gives the rest back, in one statement. Returns the calls of which something was still set
    /// aside; the others were settled before, or have expired.
    ///
    /// The commit does not wait for the disk: of a call whose line is in the ledger, what a crash of the database takes back is settled
    /// by that line when it expires.
    pub async fn settle(&self, calls: &[(ReservationId, Use)]) -> Result<Vec<ReservationId>, Error> {
        let mut tx = self.0.db.begin_unsynced().await?;
        let (done, passed) = counters::settle_all(&mut tx, calls, self.0.now()).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        note(&passed);
        Ok(done)
    }

    /// Counts what calls have used of which nothing is set aside any more, whatever the limits say: it has been used.
    pub(crate) async fn count_late(&self, subject: &Subject<'_>, used: Use) -> Result<(), Error> {
        let call = ReservationId(Uuid::now_v7());
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let bounds = bounds(&mut tx, subject, now).await?;
        let unbounded: Vec<Bound> = bounds
            .into_iter()
            .filter(|bound| !bound.kind.is_rate())
            .map(|bound| Bound { cap: None, ..bound })
            .collect();
        if unbounded.is_empty() {
            return Ok(());
        }
        let claims: Vec<Claim<'_>> = unbounded.iter().map(|bound| Claim { bound, amount: 0 }).collect();
        counters::reserve(&mut tx, subject.user, &claims).await?;
        counters::keep(&mut tx, call, subject.user, &claims, Some(now), now).await?;
        counters::settle(&mut tx, call, used, now).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    /// Settles what nobody else will: reservations that have expired, those of jobs that ended without, and those of replicas that went
    /// away, whose calls were charged before.
    pub async fn give_back(&self) -> Result<(), Error> {
        let now = self.0.now();
        for (call, used) in
            counters::orphans(&mut *self.0.db.acquire().await?, calls::SILENT.as_secs_f64(), now).await?
        {
            let mut tx = self.0.db.begin().await?;
            counters::settle(&mut tx, call, used, now).await?;
            tx.commit().await.map_err(repositories::Error::from)?;
        }
        Ok(())
    }
}

/// What bounds a call of `subject` now.
pub(crate) async fn bounds(
    db: &mut PgConnection,
    subject: &Subject<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<Bound>, Error> {
    Ok(counters::bounds(db, subject.user, &subject.pairs(), now).await?)
}

/// Sets the budgets of one call aside: the whole of them, or what is left when that still makes a useful answer. After a refusal the
/// transaction must be rolled back.
pub(crate) async fn set_aside(
    tx: &mut PgConnection,
    call: ReservationId,
    user: Option<UserId>,
    bounds: &[Bound],
    wanted: &Wanted,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Result<u32, Refusal>, Error> {
    let answer = match affordable(bounds, wanted) {
        Ok(answer) => answer,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let claims: Vec<Claim<'_>> = bounds
        .iter()
        .filter_map(|bound| {
            let amount = amount(bound, wanted, answer)?;
            Some(Claim { bound, amount })
        })
        .collect();
    let missing = counters::reserve(tx, user, &claims).await?;
    let refused = Refusal::longest(missing.iter().filter_map(|place| Some(claims.get(*place)?.bound)));
    if let Some(refusal) = refused {
        return Ok(Err(refusal));
    }
    counters::keep(tx, call, user, &claims, expires_at, now).await?;
    Ok(Ok(answer))
}

/// What a call takes from the window of a bound; `None` where there is nothing to take.
fn amount(bound: &Bound, wanted: &Wanted, answer: u32) -> Option<i64> {
    if bound.kind.is_rate() {
        return None;
    }
    match bound.kind.measure() {
        Measure::Messages => Some(1),
        Measure::Tokens => Some(wanted.tokens + i64::from(answer)),
        Measure::Money => Some(cost(wanted, answer).nanos()),
        // A call without images is none of the business of a limit on them, even of one that is used up.
        Measure::Images => (wanted.images > 0).then_some(wanted.images),
    }
}

/// How long an answer the rest of the budgets pays for. Only a forecast: the reservation itself decides.
fn affordable(bounds: &[Bound], wanted: &Wanted) -> Result<u32, Refusal> {
    let least = i64::from(wanted.least_answer.min(wanted.answer));
    let mut answer = i64::from(wanted.answer);
    let mut used_up = Vec::new();
    for bound in bounds.iter().filter(|bound| !bound.kind.is_rate()) {
        let Some(left) = bound.left() else { continue };
        let suffices = match bound.kind.measure() {
            Measure::Messages => left >= 1,
            Measure::Images => wanted.images == 0 || left >= wanted.images,
            Measure::Tokens => {
                let longest = left - wanted.tokens;
                answer = answer.min(longest.max(least));
                longest >= least
            }
            Measure::Money => {
                let rest = left - wanted.cost.nanos();
                let longest = match wanted.answer_per_million.nanos() {
                    0 => i64::MAX,
                    // In i128, since a million times a large budget does not fit. One less, since prices are rounded up.
                    price => i64::try_from(i128::from(rest) * 1_000_000 / i128::from(price) - 1).unwrap_or(i64::MAX),
                };
                answer = answer.min(longest.max(least));
                rest >= 0 && longest >= least
            }
        };
        if !suffices {
            used_up.push(bound);
        }
    }
    match Refusal::longest(used_up.into_iter()) {
        Some(refusal) => Err(refusal),
        None => Ok(u32::try_from(answer).unwrap_or(wanted.answer)),
    }
}

fn cost(wanted: &Wanted, answer: u32) -> Money {
    wanted.cost + wanted.answer_per_million.per_million(i64::from(answer))
}

/// Counts a call, whose budgets have been set aside, on all rates among the bounds or on none; refused, it gives the budgets back.
/// `at`: when it was asked for, which may be long ago for a message.
pub(crate) async fn admit(
    services: &Services,
    call: ReservationId,
    bounds: &[Bound],
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Result<(), Refusal>, Error> {
    let (rates, bounds): (Vec<Rate>, Vec<&Bound>) =
        bounds.iter().filter_map(|bound| Some((rate(bound)?, bound))).unzip();
    let refused = services.rate.admit_all(call, at, &rates).await.err();
    let Some((bound, again)) = refused.and_then(|(place, again)| Some((*bounds.get(place)?, again))) else {
        return Ok(Ok(()));
    };
    counters::settle(&mut *services.db.acquire().await?, call, Use::default(), now).await?;
    // There may be room again by now, if the message has waited long.
    Ok(Err(Refusal::reached(bound, Some(again.max(now)))))
}

fn rate(bound: &Bound) -> Option<Rate> {
    let limit = bound.cap.filter(|_| bound.kind.is_rate())?;
    Some(match bound.scope {
        Scope::User => Rate::Window {
            user: bound.subject.parse().ok()?,
            limit,
        },
        scope => paced(scope, &bound.subject, limit),
    })
}

/// The rate of what many share.
fn paced(scope: Scope, subject: &str, limit: i64) -> Rate {
    Rate::Paced {
        key: format!("{}:{subject}", scope.name()),
        limit,
    }
}

/// Counts the thresholds that a settlement has passed; after its commit.
pub(crate) fn note(passed: &[(Scope, LimitKind)]) {
    for (scope, kind) in passed {
        metrics::counter!("botdeck_limit_thresholds_total", "scope" => scope.name(), "limit" => kind.name())
            .increment(1);
    }
}
