//! Limits of several scopes at once, by any time zone, for bots and for calls without a job.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use domain::{
    ApiKeyId, ErrorCode, LimitKind, Money, Period, ReservationId, Scope,
    views::{UserQuery, UserStatus},
};
use futures::future::join_all;
use services::{Actor, Begin, Ended, Error, LimitOwner, LimitSetting, Reached, Services, Subject, Use, Wanted};
use uuid::Uuid;

use crate::app::{App, FREE, MODEL, complete, rich};

/// A hundred tokens of question and as many of answer, at a dollar a million each.
const WANTED: Wanted = Wanted {
    tokens: 100,
    cost: Money::from_nanos(100_000),
    answer: 100,
    least_answer: 100,
    answer_per_million: Money::from_nanos(1_000_000_000),
    images: 0,
};

fn call() -> ReservationId {
    ReservationId(Uuid::now_v7())
}

/// The program behind [`key`], and another.
async fn program(app: &App) {
    app.test
        .run(
            "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by)
             VALUES ('00000000-0000-0000-0000-000000000007', 'program', 'bd-123456', sha256('x'), '{chat}', now(), 'test'),
                    ('00000000-0000-0000-0000-000000000008', 'other', 'bd-234567', sha256('y'), '{chat}', now(), 'test')",
        )
        .await;
}

fn soon(app: &App) -> DateTime<Utc> {
    app.now() + TimeDelta::minutes(10)
}

fn set(app: &App, at: DateTime<Utc>) {
    app.clock.advance(at - app.now());
}

/// Tomorrow, so that there is a place for messages, whenever the test is run.
fn tomorrow(app: &App, hour: i64) -> DateTime<Utc> {
    Period::Day.reset(app.now()) + TimeDelta::hours(hour)
}

fn used(tokens: i64) -> Use {
    Use {
        messages: 1,
        tokens,
        money: tokens * 1000,
        images: 0,
    }
}

fn deck() -> Subject<'static> {
    Subject::default()
}

fn key() -> Subject<'static> {
    Subject {
        key: Some(ApiKeyId(Uuid::from_u128(7))),
        model: Some(MODEL),
        ..Subject::default()
    }
}

async fn reserve(services: &Services, app: &App, subject: &Subject<'_>) -> Option<ReservationId> {
    let call = call();
    let reserved = services
        .limits()
        .reserve(call, subject, &WANTED, soon(app))
        .await
        .unwrap();
    reserved.ok().map(|_| call)
}

/// Whether something was still set aside.
async fn settle(services: &Services, call: ReservationId, used: Use) -> bool {
    !services.limits().settle(&[(call, used)]).await.unwrap().is_empty()
}

async fn refusal(app: &App, subject: &Subject<'_>) -> (ErrorCode, Reached) {
    let refused = app.limits().reserve(call(), subject, &WANTED, soon(app)).await.unwrap();
    let refusal = refused.expect_err("it was admitted");
    (refusal.code, refusal.limit.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_at_once_on_two_processes_with_ten_left_exactly_ten_are_asked() {
    let app = App::new().await;
    let other = app.process().await;
    app.limit(LimitKind::MessagesPerDay, 10).await;
    app.limit(LimitKind::MessagesTotal, 10).await;
    // Wider ones that apply as well, and must lose nothing when the narrow one refuses.
    app.limit_of(LimitOwner::Bot(app.bot), LimitKind::MessagesPerMonth, 1000)
        .await;
    app.limit_of(LimitOwner::Model(MODEL.to_owned()), LimitKind::TokensPerDay, 1_000_000)
        .await;
    app.limit_of(LimitOwner::Deployment, LimitKind::MoneyPerMonth, 1_000_000_000)
        .await;
    let jobs = app.jobs(7, 200, "hello").await;
    let begun = join_all(jobs.iter().enumerate().map(|(n, (job, incoming))| {
        let services: &Services = if n % 2 == 0 { &app } else { &other };
        async move {
            // Neither process has seen this user before.
            let known = services.chats().meet(incoming).await.unwrap();
            let begin = services.chats().begin(job, incoming, &known, "", None).await.unwrap();
            (known, begin)
        }
    }))
    .await;
    let asked = begun.iter().filter(|(_, begin)| matches!(begin, Begin::Ask(_))).count();
    assert_eq!(asked, 10);
    assert_eq!(app.counter("messages").await, (0, 10));
    assert_eq!(app.scope_counter("user", "messages").await, (0, 10));
    assert_eq!(app.scope_counter("bot", "messages").await, (0, 10));
    assert_eq!(app.test.count("holds").await, 10);
    assert_eq!(app.test.count("users").await, 1);

    // Half are answered, half fail; each is settled by both processes at once, and counted once.
    let outcomes = begun.iter().zip(&jobs).filter_map(|((known, begin), job)| match begin {
        Begin::Ask(question) => Some((known, question, job)),
        _ => None,
    });
    for (n, (known, question, (job, incoming))) in outcomes.enumerate() {
        let answer = if n % 2 == 0 {
            complete("fine", 10, 10)
        } else {
            complete("", 0, 0)
        };
        let bodies = [rich("fine")];
        let (here, there) = (app.chats(), other.chats());
        let (one, two) = tokio::join!(
            here.settle(job, incoming, known, question, &answer, &bodies),
            there.settle(job, incoming, known, question, &answer, &bodies)
        );
        assert_eq!(
            [&one, &two]
                .iter()
                .filter(|settled| matches!(settled, Ok(true)))
                .count(),
            1,
            "{one:?} {two:?}"
        );
    }
    for scope in ["user", "bot"] {
        assert_eq!(app.scope_counter(scope, "messages").await, (5, 0), "{scope}");
    }
    assert_eq!(app.scope_counter("model", "tokens").await, (100, 0));
    assert_eq!(app.scope_counter("deployment", "money").await, (5 * 30_000, 0));
    assert_eq!(
        (app.counter("messages").await, app.test.count("holds").await),
        ((5, 0), 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_calls_without_a_job_exactly_as_many_pass_as_the_narrowest_limit_allows() {
    let app = App::new().await;
    let other = app.process().await;
    program(&app).await;
    let owner = LimitOwner::ApiKey(key().key.unwrap());
    app.limit_of(owner, LimitKind::MessagesPerDay, 15).await;
    app.limit_of(
        LimitOwner::Model(MODEL.to_owned()),
        LimitKind::TokensPerMinute,
        10 * 200 + 199,
    )
    .await;
    app.limit_of(LimitOwner::Deployment, LimitKind::MoneyTotal, 1_000_000_000)
        .await;
    // The rule is in the table itself while this test runs: whoever oversteps it is refused by the database.
    app.test
        .run("ALTER TABLE scope_counters ADD CONSTRAINT never_overshot CHECK (used + reserved <= cap)")
        .await;
    let calls = (0..200).map(|n| reserve(if n % 2 == 0 { &app } else { &other }, &app, &CALLER));
    let admitted: Vec<ReservationId> = join_all(calls).await.into_iter().flatten().collect();
    assert_eq!(admitted.len(), 10);
    assert_eq!(app.scope_counter("api_key", "messages").await, (0, 10));
    assert_eq!(app.scope_counter("model", "tokens").await, (0, 2000));

    // Each is settled by both processes at once and counts once: with what it used, or with nothing when it was cancelled.
    for (n, call) in admitted.iter().enumerate() {
        let use_of = if n < 4 { used(50) } else { Use::default() };
        let (one, two) = tokio::join!(settle(&app, *call, use_of), settle(&other, *call, use_of));
        assert!(one ^ two);
    }
    assert_eq!(app.scope_counter("api_key", "messages").await, (4, 0));
    assert_eq!(app.scope_counter("model", "tokens").await, (200, 0));
    assert_eq!(app.scope_counter("deployment", "money").await, (200_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_one_key_that_come_at_once_are_admitted_and_settled_together() {
    let app = App::new().await;
    program(&app).await;
    // One window is there already, the others are opened by the first of those who come at once.
    let owner = LimitOwner::ApiKey(key().key.unwrap());
    app.limit_of(owner.clone(), LimitKind::TokensPerDay, 1_000_000_000)
        .await;
    let first = reserve(&app, &app, &CALLER).await.unwrap();
    let kinds = [
        LimitKind::MessagesPerDay,
        LimitKind::TokensPerDay,
        LimitKind::MoneyPerMonth,
    ];
    for owner in [owner, LimitOwner::Deployment] {
        for kind in kinds {
            app.limit_of(owner.clone(), kind, 1_000_000_000).await;
        }
    }
    let calls: Vec<_> = join_all((0..200).map(|_| reserve(&app, &app, &CALLER))).await;
    let calls: Vec<ReservationId> = calls.into_iter().flatten().collect();
    assert_eq!(calls.len(), 200);
    // What a call is noted by names the transaction.
    let rounds: i64 = app.test.one("SELECT count(DISTINCT xmin::text) FROM holds").await;
    assert!(rounds <= 20, "{rounds} rounds");
    assert_eq!(app.scope_counter("api_key", "messages").await, (0, 200));
    assert_eq!(app.scope_counter("api_key", "tokens").await, (0, 201 * 200));

    let told: Vec<_> = calls.iter().map(|call| (*call, used(7))).collect();
    let settled: HashSet<_> = app.limits().settle(&told).await.unwrap().into_iter().collect();
    assert_eq!(settled, calls.into_iter().collect());
    assert!(app.limits().settle(&told).await.unwrap().is_empty());
    assert_eq!(app.scope_counter("api_key", "messages").await, (200, 0));
    assert_eq!(app.scope_counter("api_key", "tokens").await, (1400, 200));
    assert_eq!(app.scope_counter("deployment", "money").await, (1_400_000, 0));
    assert!(settle(&app, first, Use::default()).await);
    assert_eq!(app.scope_counter("api_key", "tokens").await, (1400, 0));
}

/// What bounded the calls before is remembered, and yet a limit holds from the moment on in which it is set, on every replica.
#[tokio::test]
async fn a_limit_that_another_replica_sets_holds_from_the_next_call_on() {
    let app = App::new().await;
    let other = app.process().await;
    program(&app).await;
    set(&app, tomorrow(&app, 10));
    let owner = LimitOwner::ApiKey(key().key.unwrap());
    let set = async |limit: &str| {
        let set = format!(
            "INSERT INTO scope_limits VALUES ('api_key', '{}', {limit}) ON CONFLICT (scope, subject, measure, period)
                           DO UPDATE SET amount = excluded.amount",
            key().key.unwrap()
        );
        app.test.run(&set).await;
    };
    app.limit_of(owner, LimitKind::MessagesPerDay, 1_000_000).await;
    let asked = async || {
        let mut admitted = 0;
        for process in [&*app, &other, &*app, &other] {
            admitted += usize::from(reserve(process, &app, &CALLER).await.is_some());
        }
        admitted
    };
    assert_eq!(asked().await, 4);
    set("'messages', 'day', 5").await;
    assert_eq!(asked().await, 1, "a lower limit");
    set("'messages', 'day', 1000000").await;
    assert_eq!(asked().await, 4, "a higher one");
    set("'tokens', 'minute', 399").await;
    assert_eq!(asked().await, 1, "one more");
    app.test.run("DELETE FROM scope_limits WHERE measure = 'tokens'").await;
    assert_eq!(asked().await, 4, "one less");
    set("'messages', 'day', 5").await;
    assert_eq!(asked().await, 0);
    let until = app.now() + TimeDelta::hours(1);
    let boost = format!("UPDATE scope_limits SET boost_amount = 1000000, boost_until = '{until}'");
    app.test.run(&boost).await;
    assert_eq!(asked().await, 4, "a boost");
    app.clock.advance(TimeDelta::hours(1));
    assert_eq!(asked().await, 0, "its end, which nobody sets");
    set("'messages', 'day', 1000000").await;
    set("'messages', 'minute', 2").await;
    assert_eq!(asked().await, 2, "a rate");
}

/// Where nothing has changed, a call asks the database once before it is made.
#[tokio::test]
async fn a_call_takes_its_budgets_in_one_statement() {
    let app = App::new().await;
    program(&app).await;
    let owner = LimitOwner::ApiKey(key().key.unwrap());
    for (owner, kind) in [
        (owner, LimitKind::MessagesPerDay),
        (LimitOwner::Deployment, LimitKind::TokensPerDay),
        (LimitOwner::Deployment, LimitKind::MoneyPerMonth),
    ] {
        app.limit_of(owner, kind, 1_000_000_000).await;
    }
    // Opens the windows.
    assert!(reserve(&app, &app, &CALLER).await.is_some());
    // Nobody can be asked any more which limits there are, beside the statement that takes.
    app.test.run("ALTER TABLE limit_boosts RENAME TO boosts_away").await;
    for _ in 0..5 {
        assert!(reserve(&app, &app, &CALLER).await.is_some());
    }
    assert_eq!(app.scope_counter("api_key", "messages").await, (0, 6));
    let other = Subject {
        key: Some(ApiKeyId(Uuid::from_u128(8))),
        ..key()
    };
    let unknown = app.limits().reserve(call(), &other, &WANTED, soon(&app)).await;
    assert!(unknown.is_err(), "a caller that nobody has seen has to be looked up");
}

/// One that finds its counters held by somebody waits; those of other keys do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_whose_counters_are_held_keeps_no_other_key_waiting() {
    let app = App::new().await;
    program(&app).await;
    let other = ApiKeyId(Uuid::from_u128(8));
    for key in [key().key.unwrap(), other] {
        app.limit_of(LimitOwner::ApiKey(key), LimitKind::MessagesPerDay, 5)
            .await;
    }
    assert!(reserve(&app, &app, &CALLER).await.is_some());
    let mut held = app.test.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM scope_counters FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let waiting = reserve(&app, &app, &CALLER);
    let free = async {
        let subject = Subject {
            key: Some(other),
            ..key()
        };
        let reserved = reserve(&app, &app, &subject).await;
        held.rollback().await.unwrap();
        reserved
    };
    let (waited, reserved) = tokio::join!(waiting, free);
    assert!(waited.is_some() && reserved.is_some());
    assert_eq!(app.scope_counter("api_key", "messages").await, (0, 3));
}

static CALLER: Subject<'static> = Subject {
    user: None,
    key: Some(ApiKeyId(Uuid::from_u128(7))),
    bot: None,
    model: Some(MODEL),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_share_some_limits_never_wait_for_each_other_in_a_circle() {
    let app = App::new().await;
    app.limit(LimitKind::TokensPerMonth, 100_000_000).await;
    for kind in [
        LimitKind::TokensPerDay,
        LimitKind::MoneyPerMonth,
        LimitKind::MessagesTotal,
    ] {
        app.limit_of(LimitOwner::Bot(app.bot), kind, 1_000_000_000_000).await;
        app.limit_of(LimitOwner::Model(MODEL.to_owned()), kind, 1_000_000_000_000)
            .await;
        app.limit_of(LimitOwner::Deployment, kind, 1_000_000_000_000).await;
    }
    let mut users = Vec::new();
    for user in 1..=5 {
        users.push(app.user(user).await.user);
    }
    // A deadlock would be an error of the database.
    join_all((0..100_usize).map(|n| {
        let subject = Subject {
            user: Some(users[n % users.len()]),
            bot: (n % 3 > 0).then_some(app.bot),
            model: (n % 2 > 0).then_some(MODEL),
            key: None,
        };
        let app = &app;
        async move {
            let call = reserve(app, app, &subject).await.unwrap();
            assert!(settle(app, call, used(10)).await);
        }
    }))
    .await;
    assert_eq!(app.scope_counter("deployment", "tokens").await, (1000, 0));
    assert_eq!(app.counter("tokens").await, (1000, 0));
    assert_eq!(app.test.count("holds").await + app.test.count("reservations").await, 0);
}

#[tokio::test]
async fn each_scope_refuses_by_its_own_code() {
    let app = App::new().await;
    program(&app).await;
    let user = app.user(7).await.user;
    let subject = Subject {
        user: Some(user),
        bot: Some(app.bot),
        ..key()
    };
    let owners = [
        (LimitOwner::User(user), Scope::User, ErrorCode::LimitTokens),
        (
            LimitOwner::ApiKey(subject.key.unwrap()),
            Scope::ApiKey,
            ErrorCode::LimitKey,
        ),
        (LimitOwner::Bot(app.bot), Scope::Bot, ErrorCode::LimitBot),
        (LimitOwner::Model(MODEL.to_owned()), Scope::Model, ErrorCode::LimitModel),
        (LimitOwner::Deployment, Scope::Deployment, ErrorCode::LimitDeck),
    ];
    for (owner, scope, code) in owners {
        app.limit_of(owner.clone(), LimitKind::TokensPerDay, 199).await;
        let (told, reached) = refusal(&app, &subject).await;
        assert_eq!(
            (told, reached.scope, reached.kind),
            (code, scope, LimitKind::TokensPerDay)
        );
        assert_eq!(reached.amount, 199);
        // Enough for this one, and 0 is none at all, even for what costs nothing.
        app.limit_of(owner.clone(), LimitKind::TokensPerDay, 1_000_000).await;
        let call = reserve(&app, &app, &subject).await.unwrap();
        assert!(settle(&app, call, Use::default()).await);
        app.limit_of(owner.clone(), LimitKind::MessagesTotal, 0).await;
        assert!(reserve(&app, &app, &subject).await.is_none(), "{owner:?}");
        let none = [LimitSetting::Limit(LimitKind::MessagesTotal, None)];
        app.limits().set(&Actor::system("test"), &owner, &none).await.unwrap();
        assert!(reserve(&app, &app, &subject).await.is_some(), "{owner:?}");
    }
}

#[tokio::test]
async fn of_limits_that_are_used_up_the_one_that_lasts_longest_is_told() {
    let app = App::new().await;
    let kinds = [
        LimitKind::TokensPerMinute,
        LimitKind::TokensPerDay,
        LimitKind::TokensPerMonth,
        LimitKind::TokensTotal,
    ];
    // Not the last days of a month, where a day ends with it.
    set(&app, Utc.with_ymd_and_hms(2026, 11, 12, 10, 0, 30).unwrap());
    for kind in kinds {
        app.limit_of(LimitOwner::Deployment, kind, 0).await;
        let (_, reached) = refusal(&app, &deck()).await;
        assert_eq!(reached.kind, kind);
        assert_eq!(reached.resets_at.is_none(), kind == LimitKind::TokensTotal);
    }
    // The same when it is the reservation that refuses, since the forecast saw enough left.
    let app = App::new().await;
    set(&app, Utc.with_ymd_and_hms(2026, 11, 12, 10, 0, 30).unwrap());
    app.limit_of(LimitOwner::Deployment, LimitKind::MessagesPerDay, 1).await;
    app.limit_of(LimitOwner::Deployment, LimitKind::MessagesPerMonth, 1)
        .await;
    let limits = app.limits();
    let all = join_all((0..8).map(|_| limits.reserve(call(), &DECK, &WANTED, soon(&app)))).await;
    let refused: Vec<_> = all.into_iter().filter_map(|one| one.unwrap().err()).collect();
    assert_eq!(refused.len(), 7);
    for refusal in refused {
        assert_eq!(refusal.limit.unwrap().kind, LimitKind::MessagesPerMonth);
    }
}

static DECK: Subject<'static> = Subject {
    user: None,
    key: None,
    bot: None,
    model: None,
};

#[tokio::test]
async fn an_expired_reservation_is_given_back_once_and_can_no_longer_be_settled() {
    let app = App::new().await;
    app.limit_of(LimitOwner::Deployment, LimitKind::MessagesPerDay, 1).await;
    let call = reserve(&app, &app, &deck()).await.unwrap();
    // Older than what a job leaves behind may become, and still not expired.
    app.test
        .run("UPDATE holds SET created_at = now() - interval '5 minutes'")
        .await;
    app.queue().tidy().await.unwrap();
    assert_eq!(app.scope_counter("deployment", "messages").await, (0, 1));
    app.clock.advance(TimeDelta::minutes(10));
    app.queue().tidy().await.unwrap();
    app.queue().tidy().await.unwrap();
    assert_eq!(app.scope_counter("deployment", "messages").await, (0, 0));
    assert!(!settle(&app, call, used(10)).await);
    assert_eq!(app.scope_counter("deployment", "messages").await, (0, 0));
    assert!(reserve(&app, &app, &deck()).await.is_some());
}

/// The release before settles what it knows of: the windows of the user. The rest is settled by housekeeping, by the ledger.
#[tokio::test]
async fn what_the_release_before_leaves_of_a_reservation_is_settled_by_the_ledger() {
    let app = App::new().await;
    app.limit_of(LimitOwner::Bot(app.bot), LimitKind::TokensPerDay, 100_000)
        .await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let hold = "CREATE TABLE kept AS SELECT * FROM holds";
    app.test.run(hold).await;
    let counters = "CREATE TABLE kept_counters AS SELECT * FROM scope_counters";
    app.test.run(counters).await;
    let answer = complete("fine", 20, 30);
    app.chats()
        .settle(&job, &incoming, &known, &question, &answer, &[rich("fine")])
        .await
        .unwrap();
    app.queue().end(&job, Ended::Done).await.unwrap();
    // As if it had been settled by statements that know nothing of holds.
    app.test
        .run("UPDATE scope_counters c SET used = k.used, reserved = k.reserved FROM kept_counters k WHERE k.scope = c.scope")
        .await;
    app.test
        .run("INSERT INTO holds SELECT * FROM kept; UPDATE holds SET created_at = now() - interval '2 minutes'")
        .await;
    app.queue().tidy().await.unwrap();
    app.queue().tidy().await.unwrap();
    assert_eq!(app.scope_counter("bot", "tokens").await, (50, 0));
    assert_eq!(app.counter("tokens").await, (50, 0));
}

#[tokio::test]
async fn days_and_months_are_those_of_the_limits_time_zone() {
    let app = App::new().await;
    let owner = LimitOwner::Deployment;
    for (zone, now, day, month) in [
        ("UTC", (10, 25, 23, 30), (10, 26, 0, 0), (11, 1, 0, 0)),
        // Half past one of the next day in summer time; the day of the change has 25 hours.
        ("Europe/Berlin", (10, 24, 22, 30), (10, 25, 23, 0), (10, 31, 23, 0)),
        ("Asia/Kathmandu", (10, 25, 18, 20), (10, 26, 18, 15), (10, 31, 18, 15)),
        ("America/New_York", (11, 1, 3, 59), (11, 1, 4, 0), (11, 1, 4, 0)),
    ] {
        let at = |(month, day, hour, minute)| Utc.with_ymd_and_hms(2026, month, day, hour, minute, 0).unwrap();
        set(&app, at(now));
        for (kind, ends) in [(LimitKind::TokensPerDay, day), (LimitKind::TokensPerMonth, month)] {
            let settings = [LimitSetting::Limit(kind, Some(0)), LimitSetting::Zone(zone.to_owned())];
            app.limits()
                .set(&Actor::system("test"), &owner, &settings)
                .await
                .unwrap();
            let (_, reached) = refusal(&app, &deck()).await;
            assert_eq!((reached.kind, reached.resets_at), (kind, Some(at(ends))), "{zone}");
            app.limits()
                .set(&Actor::system("test"), &owner, &[LimitSetting::Limit(kind, None)])
                .await
                .unwrap();
        }
    }
    let wrong = [
        LimitSetting::Limit(LimitKind::TokensPerDay, Some(1)),
        LimitSetting::Zone("Europe/Atlantis".to_owned()),
    ];
    let refused = app.limits().set(&Actor::system("test"), &owner, &wrong).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let alone = [LimitSetting::Zone("Asia/Tokyo".to_owned())];
    let refused = app.limits().set(&Actor::system("test"), &owner, &alone).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(app.test.count("scope_limits").await, 0);
}

#[tokio::test]
async fn a_plan_counts_by_its_own_days() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 1).await;
    let zone = vec![LimitSetting::Zone("Asia/Tokyo".to_owned())];
    app.plans()
        .set_limits(&Actor::system("test"), FREE, zone)
        .await
        .unwrap();
    // An hour before midnight in Tokyo.
    set(&app, tomorrow(&app, 14));
    app.talk(7, "hello", "fine").await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let reached = app.refused(&job, &incoming).await.limit.unwrap();
    let midnight = Period::Day.start(app.now()) + TimeDelta::hours(15);
    assert_eq!(reached.resets_at, Some(midnight));
    set(&app, midnight);
    app.ask(&job, &incoming).await;
}

#[tokio::test]
async fn images_are_limited_for_calls_that_make_some() {
    let app = App::new().await;
    app.limit_of(LimitOwner::Deployment, LimitKind::ImagesPerDay, 3).await;
    let images = |images| Wanted { images, ..WANTED };
    let ask = async |wanted| {
        let call = call();
        let reserved = app.limits().reserve(call, &DECK, &wanted, soon(&app)).await.unwrap();
        reserved.map(|_| call)
    };
    let two = ask(images(2)).await.unwrap();
    assert_eq!(ask(images(2)).await.unwrap_err().code, ErrorCode::LimitDeck);
    ask(images(1)).await.unwrap();
    assert!(ask(images(1)).await.is_err());
    // One of two came.
    let one = Use { images: 1, ..used(10) };
    assert!(settle(&app, two, one).await);
    ask(images(1)).await.unwrap();
    app.limit_of(LimitOwner::Deployment, LimitKind::ImagesPerDay, 0).await;
    ask(images(0)).await.unwrap();
}

#[tokio::test]
async fn a_threshold_is_told_of_once_in_each_window() {
    let app = App::new().await;
    let owner = app.owner().await;
    app.limit(LimitKind::MessagesPerDay, 5).await;
    app.limit_of(LimitOwner::Bot(app.bot), LimitKind::MessagesTotal, 4)
        .await;
    let told = async || -> Vec<(Scope, i64, i64)> {
        let events = app.limits().events(&owner).await.unwrap();
        let mut told: Vec<_> = events
            .iter()
            .map(|event| (event.scope, event.used, event.limit))
            .collect();
        told.sort();
        told
    };
    for _ in 0..3 {
        app.talk(7, "hello", "fine").await;
    }
    assert_eq!(told().await, []);
    let near = async || {
        let everybody = UserQuery {
            search: "".parse().unwrap(),
            status: UserStatus::Any,
            plan: None,
            after: None,
        };
        let page = app.users().list(&owner, everybody).await.unwrap();
        page.rows[0].near_limit
    };
    assert!(!near().await);
    // The fourth of five is 80 %, and of the bot's four all.
    app.talk(7, "hello", "fine").await;
    assert_eq!(told().await, [(Scope::User, 4, 5), (Scope::Bot, 4, 4)]);
    assert!(near().await);
    app.limit_of(LimitOwner::Bot(app.bot), LimitKind::MessagesTotal, 100)
        .await;
    app.talk(7, "hello", "fine").await;
    assert_eq!(told().await.len(), 2, "told again in the same window");
    app.clock.advance(TimeDelta::days(1));
    for _ in 0..4 {
        app.talk(7, "hello", "fine").await;
    }
    assert_eq!(told().await.len(), 3);
    let names: HashSet<String> = app
        .limits()
        .events(&owner)
        .await
        .unwrap()
        .into_iter()
        .map(|event| event.name)
        .collect();
    assert_eq!(names, HashSet::from(["Person 7".to_owned(), "Bot".to_owned()]));
}

#[tokio::test]
async fn a_boost_lifts_a_limit_until_its_end_and_a_reset_begins_the_window_anew() {
    let app = App::new().await;
    let owner = app.owner().await;
    let kind = LimitKind::MessagesPerDay;
    set(&app, tomorrow(&app, 10));
    let known = app.talk(7, "hello", "fine").await;
    let hour = app.now() + TimeDelta::hours(1);
    let lift = async |amount, until| {
        app.limits()
            .boost(&owner, known.user, kind, Some((amount, until)))
            .await
    };
    assert!(
        matches!(lift(9, hour).await, Err(Error::Conflict(_))),
        "there is no limit to lift"
    );
    app.limit(kind, 1).await;
    assert!(matches!(lift(1, hour).await, Err(Error::Invalid(_))));
    assert!(matches!(lift(3, app.now()).await, Err(Error::Invalid(_))));
    let (job, incoming) = app.job(7, 7, "hello").await;
    assert_eq!(app.refused(&job, &incoming).await.code, ErrorCode::LimitDay);

    lift(2, hour).await.unwrap();
    let bar = async || {
        let detail = app.users().get(&owner, known.user, None).await.unwrap().unwrap();
        detail.limits.into_iter().find(|bar| bar.kind == kind).unwrap()
    };
    assert_eq!((bar().await.limit, bar().await.boosted_until), (Some(2), Some(hour)));
    app.ask(&job, &incoming).await;
    app.queue().end(&job, Ended::Done).await.unwrap();
    // A smaller limit of the user's own does not take it back.
    app.limit_of(LimitOwner::User(known.user), kind, 0).await;
    assert_eq!(bar().await.limit, Some(2));
    set(&app, hour);
    assert_eq!((bar().await.limit, bar().await.boosted_until), (Some(0), None));
    let none = [LimitSetting::Limit(kind, None)];
    app.limits()
        .set(&owner, &LimitOwner::User(known.user), &none)
        .await
        .unwrap();

    let (job, incoming) = app.job(7, 7, "hello").await;
    assert_eq!(app.refused(&job, &incoming).await.limit.unwrap().amount, 1);
    app.limits().reset(&owner, known.user, kind).await.unwrap();
    assert_eq!(app.counter("messages").await.0, 0);
    app.queue().tidy().await.unwrap();
    let actions: Vec<String> = app
        .test
        .column("SELECT action FROM audit WHERE target_kind = 'user' ORDER BY id")
        .await;
    assert_eq!(actions, ["user.boost", "limits.set", "limits.set", "user.reset_limit"]);
    assert_eq!(
        app.audit().verify().await.unwrap(),
        services::Verified::Whole {
            rows: u64::try_from(app.test.count("audit").await).unwrap()
        }
    );
}

#[tokio::test]
async fn what_many_share_is_lifted_until_a_moment_and_begun_anew_as_a_users_limit_is() {
    let app = App::new().await;
    program(&app).await;
    let owner = app.owner().await;
    set(&app, tomorrow(&app, 1));
    let kind = LimitKind::MessagesPerDay;
    let of_model = Subject {
        model: Some(MODEL),
        ..Subject::default()
    };
    let of_bot = Subject {
        bot: Some(app.bot),
        ..Subject::default()
    };
    let program = Subject { model: None, ..key() };
    for (whose, subject) in [
        (LimitOwner::ApiKey(program.key.unwrap()), program),
        (LimitOwner::Model(MODEL.to_owned()), of_model),
        (LimitOwner::Bot(app.bot), of_bot),
        (LimitOwner::Deployment, deck()),
    ] {
        let hour = app.now() + TimeDelta::hours(1);
        let lift = async |amount, until| {
            let boost = Some((amount, until));
            app.limits().boost(&owner, whose.clone(), kind, boost).await
        };
        let use_one = async || {
            let call = reserve(&app, &app, &subject).await;
            match call {
                Some(call) => settle(&app, call, used(10)).await,
                None => false,
            }
        };
        let bar = async || app.limits().sheet(&owner, &whose).await.unwrap().bars.remove(0);
        let none = lift(9, hour).await;
        assert!(
            matches!(none, Err(Error::Conflict(_))),
            "there is no limit to lift: {none:?}"
        );
        let none = app.limits().reset(&owner, whose.clone(), kind).await;
        assert!(matches!(none, Err(Error::Conflict(_))), "nor to begin anew: {none:?}");
        app.limits()
            .set(&owner, &whose, &[(kind, Some(1)).into()])
            .await
            .unwrap();
        assert!(matches!(lift(1, hour).await, Err(Error::Invalid(_))));
        assert!(matches!(lift(3, app.now()).await, Err(Error::Invalid(_))));
        assert!(use_one().await && !use_one().await, "{whose}");

        lift(2, hour).await.unwrap();
        assert!(matches!(lift(2, hour).await, Err(Error::Conflict(_))), "the same again");
        assert_eq!((bar().await.limit, bar().await.boosted_until), (Some(2), Some(hour)));
        assert!(use_one().await && !use_one().await, "{whose}");
        set(&app, hour);
        assert_eq!((bar().await.limit, bar().await.boosted_until), (Some(1), None));
        assert!(!use_one().await, "{whose}");

        app.limits().reset(&owner, whose.clone(), kind).await.unwrap();
        assert_eq!(bar().await.used, Some(0));
        assert!(use_one().await && !use_one().await, "{whose}");

        let history = app.limits().sheet(&owner, &whose).await.unwrap().history;
        let past: Vec<_> = history
            .iter()
            .map(|row| (row.action.as_str(), row.before.clone(), row.after.clone()))
            .collect();
        let amount = |amount: &str| Some(serde_json::json!({ kind.name(): amount }));
        let boosted = serde_json::json!({ kind.name(): "2", "until": hour });
        assert_eq!(
            past,
            [
                ("limits.reset", amount("2"), amount("0")),
                ("limits.boost", None, Some(boosted)),
                (
                    "limits.set",
                    Some(serde_json::json!({ kind.name(): null })),
                    amount("1")
                ),
            ]
        );
        app.limits().set(&owner, &whose, &[(kind, None).into()]).await.unwrap();
    }
    let until = app.now() + TimeDelta::hours(1);
    let of_plan = LimitOwner::Plan(FREE);
    let each = app
        .limits()
        .boost(&owner, of_plan.clone(), kind, Some((9, until)))
        .await;
    assert!(matches!(each, Err(Error::Conflict(_))), "{each:?}");
    let each = app.limits().reset(&owner, of_plan, kind).await;
    assert!(matches!(each, Err(Error::Conflict(_))), "{each:?}");
}

#[tokio::test]
async fn a_shared_minute_begins_anew_on_every_replica() {
    let app = App::new().await;
    let other = app.process().await;
    let owner = app.owner().await;
    let of_bot = Subject {
        bot: Some(app.bot),
        ..Subject::default()
    };
    let whose = LimitOwner::Bot(app.bot);
    app.limit_of(whose.clone(), LimitKind::MessagesPerMinute, 1).await;
    assert!(reserve(&other, &app, &of_bot).await.is_some());
    assert!(reserve(&other, &app, &of_bot).await.is_none());
    app.limits()
        .reset(&owner, whose, LimitKind::MessagesPerMinute)
        .await
        .unwrap();
    assert!(reserve(&other, &app, &of_bot).await.is_some());
}
