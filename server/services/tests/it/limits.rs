use std::collections::HashSet;

use chrono::TimeDelta;
use domain::{ErrorCode, LimitKind, Period, Scope};
use futures::future::join_all;
use gateway::Finish;
use rand::Rng;
use services::{Begin, Clock, Ended, Incoming, Reached, Refusal};

use crate::app::{App, answer, complete, last_second_of_the_month, model, rich};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_messages_at_once_from_a_stranger_with_ten_left_exactly_ten_are_asked() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 10).await;
    let jobs = app.jobs(7, 50, "hello").await;
    let begun = join_all(jobs.iter().map(|(job, incoming)| app.begin(job, incoming))).await;
    let asked = begun.iter().filter(|(_, begin)| matches!(begin, Begin::Ask(_))).count();
    assert_eq!(asked, 10);
    let expected = Refusal {
        code: ErrorCode::LimitDay,
        limit: Some(Reached {
            scope: Scope::User,
            kind: LimitKind::MessagesPerDay,
            amount: 10,
            resets_at: Some(Period::Day.reset(app.now())),
        }),
    };
    for (_, begin) in &begun {
        if let Begin::Refused(refusal) = begin {
            assert_eq!(*refusal, expected);
        }
    }
    assert_eq!(app.counter("messages").await, (0, 10));
    assert_eq!(app.test.count("reservations").await, 10);
    assert_eq!(app.test.count("users").await, 1);
}

#[tokio::test]
async fn each_limit_refuses_by_its_own_name_amount_and_reset() {
    for (kind, code) in [
        (LimitKind::MessagesPerMinute, ErrorCode::LimitMinute),
        (LimitKind::MessagesPerDay, ErrorCode::LimitDay),
        (LimitKind::TokensPerDay, ErrorCode::LimitTokens),
        (LimitKind::MoneyPerMonth, ErrorCode::LimitMoney),
    ] {
        let app = App::new().await;
        // None allowed is not the same as no limit.
        app.limit(kind, 0).await;
        let (job, incoming) = app.job(7, 7, "hello").await;
        let refusal = app.refused(&job, &incoming).await;
        let reached = refusal.limit.unwrap();
        let resets_at = reached.resets_at.unwrap();
        assert_eq!((refusal.code, reached.kind, reached.amount), (code, kind, 0));
        if kind == LimitKind::MessagesPerMinute {
            // Redis keeps milliseconds.
            let exact = app.now() + TimeDelta::minutes(1);
            assert_eq!(resets_at.timestamp_millis(), exact.timestamp_millis());
        } else {
            assert_eq!(resets_at, kind.period().reset(app.now()), "{kind}");
        }
        assert_eq!(app.test.count("reservations").await, 0);
        assert_eq!(
            app.test.count("counters WHERE reserved > 0").await,
            0,
            "a refusal by {kind} kept something"
        );
    }
}

/// The plan that a deployment starts with, with ten messages left of the day: the day is what is used up, however quickly they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_that_lasts_longest_is_the_one_that_is_told() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerMinute, 20).await;
    app.limit(LimitKind::MessagesPerDay, 10).await;
    let jobs = app.jobs(7, 50, "hello").await;
    let begun = join_all(jobs.iter().map(|(job, incoming)| app.begin(job, incoming))).await;
    let codes = |wanted| {
        let refused = begun.iter().filter(|(_, begin)| match begin {
            Begin::Refused(refusal) => refusal.code == wanted,
            _ => false,
        });
        refused.count()
    };
    assert_eq!((codes(ErrorCode::LimitDay), codes(ErrorCode::LimitMinute)), (40, 0));
    for (job, _) in &jobs {
        assert!(app.queue().end(job, Ended::Done).await.unwrap());
    }
    // What the day refused has taken nothing of the minute, and the other way round.
    app.limit(LimitKind::MessagesPerDay, 1000).await;
    let jobs = app.jobs(7, 50, "hello").await;
    let begun = join_all(jobs.iter().map(|(job, incoming)| app.begin(job, incoming))).await;
    assert_eq!(
        begun.iter().filter(|(_, begin)| matches!(begin, Begin::Ask(_))).count(),
        10
    );
    assert_eq!(app.counter("messages").await, (0, 20));
    assert_eq!(app.test.count("reservations").await, 20);
    // A month lasts longer than a day.
    app.limit(LimitKind::MessagesPerDay, 0).await;
    app.limit(LimitKind::TokensPerDay, 0).await;
    app.limit(LimitKind::MoneyPerMonth, 0).await;
    let (job, incoming) = app.job(8, 8, "hello").await;
    assert_eq!(app.refused(&job, &incoming).await.code, ErrorCode::LimitMoney);
}

/// An outage of ten minutes: whoever wrote every half minute gets all answers, though they are all made at once.
#[tokio::test]
async fn after_an_outage_nobody_is_told_to_have_written_too_quickly() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerMinute, 2).await;
    let mut jobs = app.jobs(7, 20, "hello").await;
    for (number, (_, incoming)) in (0..).zip(&mut jobs) {
        incoming.received_at -= TimeDelta::seconds(31 * number);
    }
    for (job, incoming) in &jobs {
        app.ask(job, incoming).await;
    }
}

/// The window may be long forgotten by then: who has a place already keeps it.
#[tokio::test]
async fn a_job_with_a_reservation_is_not_asked_for_its_minute_again() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerMinute, 1).await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    app.ask(&job, &incoming).await;
    app.limit(LimitKind::MessagesPerMinute, 0).await;
    let later = Incoming {
        received_at: incoming.received_at + TimeDelta::hours(1),
        ..incoming
    };
    app.ask(&job, &later).await;
}

#[tokio::test]
async fn without_limits_everything_is_answered_and_counted_all_the_same() {
    let app = App::new().await;
    for (job, incoming) in &app.jobs(7, 30, "hello").await {
        let (_, question) = app.ask(job, incoming).await;
        assert_eq!(question.request.max_tokens, model().max_answer_tokens);
    }
    assert_eq!(app.counter("messages").await, (0, 30));
    assert!(app.counter("tokens").await.1 > 30 * 1000);
}

/// The cap must hold at every moment, so another task looks all the time.
async fn never_overshot(measure: &str, kind: LimitKind, cap: i64) {
    let app = App::new().await;
    app.limit(kind, cap).await;
    // The rule is in the table itself while this test runs: whoever oversteps it is refused by the database.
    app.test.run(&format!(
        "ALTER TABLE counters ADD CONSTRAINT never_overshot CHECK (measure <> '{measure}' OR used + reserved <= {cap})"
    ))
    .await;
    let jobs = app.jobs(7, 100, "hello").await;
    let outcomes = join_all(jobs.iter().map(|(job, incoming)| async {
        let (known, begin) = app.begin(job, incoming).await;
        let Begin::Ask(question) = begin else { return (0, 0) };
        let used = rand::rng().random_range(1..=i64::from(question.request.max_tokens));
        let answer = complete("fine", 5, used);
        let settled = app
            .chats()
            .settle(job, incoming, &known, &question, &answer, &[rich("fine")])
            .await;
        assert!(settled.unwrap());
        (5 + used, answer.cost.nanos())
    }))
    .await;
    let (tokens, money) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let asked = outcomes.iter().filter(|(tokens, _)| *tokens > 0).count();
    assert!(
        (1..100).contains(&asked),
        "{asked} of 100 were asked: the limit was not what bounded them"
    );
    assert_eq!(app.counter("tokens").await, (tokens, 0));
    assert_eq!(app.counter("money").await, (money, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tokens_of_a_day_are_never_overshot_by_a_hundred_at_once() {
    never_overshot("tokens", LimitKind::TokensPerDay, 12_345).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_money_of_a_month_is_never_overshot_by_a_hundred_at_once() {
    // Twelve thousandths of a dollar: about six whole answers.
    never_overshot("money", LimitKind::MoneyPerMonth, 12_345_678).await;
}

#[tokio::test]
async fn what_is_left_of_a_budget_shortens_the_answer_until_it_would_be_of_no_use() {
    let app = App::new().await;
    app.limit(LimitKind::TokensPerDay, 1500).await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, first) = app.ask(&job, &incoming).await;
    assert_eq!(first.request.max_tokens, 1000);
    let reserved = app.counter("tokens").await.1;
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &first, &complete("x", 10, 990), &[])
            .await
            .unwrap()
    );
    assert!(app.queue().end(&job, Ended::Done).await.unwrap());
    assert_eq!(app.counter("tokens").await, (1000, 0));

    // 500 are left, for question and answer together.
    let (job, incoming) = app.job(7, 7, "/").await;
    let (known, second) = app.ask(&job, &incoming).await;
    assert!(
        (300..500).contains(&second.request.max_tokens),
        "{}",
        second.request.max_tokens
    );
    assert_eq!(app.counter("tokens").await, (1000, 500));
    assert!(reserved > 1000);
    let rest = i64::from(second.request.max_tokens);
    assert!(
        app.chats()
            .settle(
                &job,
                &incoming,
                &known,
                &second,
                &complete("x", 500 - rest, rest - 100),
                &[]
            )
            .await
            .unwrap()
    );
    assert!(app.queue().end(&job, Ended::Done).await.unwrap());

    // 100 are left: less than the question and a useful answer.
    let (job, incoming) = app
        .job(
            7,
            7,
            "and now a question that is a little longer than the one before it",
        )
        .await;
    assert_eq!(app.refused(&job, &incoming).await.code, ErrorCode::LimitTokens);
}

#[tokio::test]
async fn what_is_left_of_the_money_shortens_the_answer_too() {
    let app = App::new().await;
    // A thousandth of a dollar: some 500 tokens of answer.
    app.limit(LimitKind::MoneyPerMonth, 1_000_000).await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (_, question) = app.ask(&job, &incoming).await;
    assert!(
        (400..500).contains(&question.request.max_tokens),
        "{}",
        question.request.max_tokens
    );
    let (used, reserved) = app.counter("money").await;
    assert_eq!(used, 0);
    assert!((990_000..=1_000_000).contains(&reserved), "{reserved}");
}

#[tokio::test]
async fn a_message_too_long_for_the_model_is_refused_before_anything_is_counted() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, &"word ".repeat(40_000)).await;
    let refusal = app.refused(&job, &incoming).await;
    assert_eq!(
        refusal,
        Refusal {
            code: ErrorCode::TooLong,
            limit: None
        }
    );
    assert_eq!(app.test.count("counters").await, 0);
}

#[tokio::test]
async fn a_job_that_is_run_again_finds_its_reservation() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 1).await;
    app.limit(LimitKind::MessagesPerMinute, 1).await;
    app.limit(LimitKind::TokensPerDay, 1200).await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (_, first) = app.ask(&job, &incoming).await;
    let before = (app.counter("messages").await, app.counter("tokens").await);
    let (_, second) = app.ask(&job, &incoming).await;
    assert_eq!(second.request.max_tokens, first.request.max_tokens);
    assert_eq!((app.counter("messages").await, app.counter("tokens").await), before);
}

/// A worker that was frozen before it set anything aside wakes when its job is another's, or done: nobody would settle it.
#[tokio::test]
async fn nothing_is_set_aside_for_a_job_that_was_lost() {
    let app = App::new().await;
    let (frozen, incoming) = app.job(7, 7, "hello").await;
    app.test
        .run("UPDATE jobs SET lease_until = now() - interval '1 second'")
        .await;
    assert_eq!(app.queue().recover().await.unwrap(), 1);
    assert!(matches!(app.begin(&frozen, &incoming).await.1, Begin::LeaseLost));
    let other = app
        .queue()
        .claim("another worker", 9, services::Which::All, &[])
        .await
        .unwrap()
        .remove(0);
    assert!(matches!(app.begin(&frozen, &incoming).await.1, Begin::LeaseLost));
    let (known, question) = app.ask(&other, &incoming).await;
    let answer = complete("Hello", 10, 10);
    let bodies = [rich("Hello")];
    assert!(
        app.chats()
            .settle(&other, &incoming, &known, &question, &answer, &bodies)
            .await
            .unwrap()
    );
    assert!(app.queue().end(&other, Ended::Done).await.unwrap());
    assert!(matches!(app.begin(&frozen, &incoming).await.1, Begin::LeaseLost));
    assert_eq!(app.test.count("reservations").await, 0);
    assert_eq!(app.counter("messages").await, (1, 0));
}

#[tokio::test]
async fn the_real_use_is_counted_in_the_windows_it_was_reserved_from() {
    let app = App::new().await;
    app.clock.advance(last_second_of_the_month(app.now()) - app.now());
    app.limit(LimitKind::MessagesPerDay, 1).await;
    app.limit(LimitKind::MoneyPerMonth, 10_000_000).await;
    let (day, month) = (Period::Day.start(app.now()), Period::Month.start(app.now()));
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let (second, other) = app.job(7, 8, "hello").await;
    let refusal = app.refused(&second, &other).await;
    assert_eq!(
        refusal.limit.unwrap().resets_at,
        Some(app.now() + TimeDelta::seconds(1))
    );

    // Midnight passes while the answer is made: there is a new day's message already, and a new month's money.
    app.clock.advance(TimeDelta::seconds(1));
    app.ask(&second, &other).await;
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &question, &complete("x", 100, 100), &[])
            .await
            .unwrap()
    );
    let rows: Vec<(String, String, chrono::DateTime<chrono::Utc>, i64, bool)> = sqlx::query_as(
        "SELECT measure, period, starts_at, used, reserved > 0 FROM counters ORDER BY starts_at, measure",
    )
    .fetch_all(app.test.pool())
    .await
    .unwrap();
    let of = |measure: &str, starts| {
        let row = rows.iter().find(|row| row.0 == measure && row.2 == starts);
        row.map(|row| (row.3, row.4))
    };
    assert_eq!(of("messages", day), Some((1, false)));
    assert_eq!(of("tokens", day), Some((200, false)));
    assert_eq!(of("money", month), Some((300_000, false)));
    let next = app.clock.now();
    assert_eq!(
        (of("messages", next), of("tokens", next), of("money", next)),
        (Some((0, true)), Some((0, true)), Some((0, true)))
    );
    // What staff and `/usage` show is today's.
    let bars = app.chats().usage(&known).await.unwrap();
    let messages = bars.iter().find(|bar| bar.kind == LimitKind::MessagesPerDay).unwrap();
    assert_eq!(
        (messages.used, messages.reserved, messages.limit),
        (Some(0), 1, Some(1))
    );
    assert_eq!(messages.resets_at, Some(next + TimeDelta::days(1)));
}

#[tokio::test]
async fn another_plan_or_another_limit_holds_from_the_next_message_on() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 1).await;
    app.talk(7, "one", "fine").await;
    let (job, incoming) = app.job(7, 7, "two").await;
    assert_eq!(app.refused(&job, &incoming).await.code, ErrorCode::LimitDay);
    app.limit(LimitKind::MessagesPerDay, 2).await;
    app.ask(&job, &incoming).await;
    assert!(app.queue().end(&job, Ended::Done).await.unwrap());
    app.limit(LimitKind::MessagesPerDay, 0).await;
    let (job, incoming) = app.job(7, 7, "three").await;
    assert_eq!(app.refused(&job, &incoming).await.limit.unwrap().amount, 0);
}

#[tokio::test]
async fn one_user_never_uses_up_what_is_another_ones() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 1).await;
    let users: HashSet<i64> = (1..20).collect();
    for user in users {
        app.talk(user, "hi", "fine").await;
    }
    assert_eq!(app.counter("messages").await, (19, 0));
}

#[tokio::test]
async fn failures_are_given_back_and_stopped_answers_are_billed_for_what_was_made() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 5).await;
    let down = || gateway::GatewayError::Timeout {
        what: "the first token",
    };
    let cases = [
        (answer("", Finish::Failed, (0, 0), Some(down())), 0, 0),
        // A blank is no answer either.
        (answer("\n", Finish::Failed, (0, 0), Some(down())), 0, 0),
        (answer("half of", Finish::Stopped, (20, 30), None), 1, 50),
        (answer("half of", Finish::Cut, (20, 30), Some(down())), 1, 50),
        (complete("all of it", 20, 30), 1, 50),
    ];
    let (mut messages, mut tokens) = (0, 0);
    for (answer, message, used) in cases {
        let (job, incoming) = app.job(7, 7, "hello").await;
        let (known, question) = app.ask(&job, &incoming).await;
        assert!(
            app.chats()
                .settle(&job, &incoming, &known, &question, &answer, &[rich("x")])
                .await
                .unwrap()
        );
        assert!(app.queue().end(&job, Ended::Done).await.unwrap());
        messages += message;
        tokens += used;
        assert_eq!(
            app.counter("messages").await,
            (messages, 0),
            "after {:?} {:?}",
            answer.finish,
            answer.text
        );
        assert_eq!(app.counter("tokens").await, (tokens, 0));
    }
    assert_eq!(app.test.count("reservations").await, 0);
}

#[tokio::test]
async fn a_dead_job_gives_its_reservation_back() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    app.ask(&job, &incoming).await;
    assert_eq!(app.counter("messages").await, (0, 1));
    assert!(
        app.queue()
            .end(
                &job,
                Ended::Dead {
                    error: "no way".to_owned()
                }
            )
            .await
            .unwrap()
    );
    assert_eq!(app.counter("messages").await, (0, 0));
    assert_eq!(app.counter("money").await, (0, 0));
    assert_eq!(
        app.test
            .count("errors WHERE code = 'BD-INTERNAL' AND cause = 'no way'")
            .await,
        1
    );
}

#[tokio::test]
async fn housekeeping_gives_back_what_was_left_behind_and_nothing_that_is_in_use() {
    let app = App::new().await;
    let jobs = app.jobs(7, 4, "hello").await;
    for (job, incoming) in &jobs {
        app.ask(job, incoming).await;
    }
    let [running, done, gone, fresh] = &jobs[..] else {
        panic!("four jobs")
    };
    app.test
        .run("UPDATE reservations SET created_at = now() - interval '2 minutes'")
        .await;
    app.test
        .run(&format!(
            "UPDATE jobs SET state = 'done', lease_token = NULL WHERE id IN ('{}', '{}')",
            done.0.id, fresh.0.id
        ))
        .await;
    app.test
        .run(&format!("DELETE FROM jobs WHERE id = '{}'", gone.0.id))
        .await;
    app.test
        .run(&format!(
            "UPDATE reservations SET created_at = now() WHERE job_id = '{}'",
            fresh.0.id
        ))
        .await;
    app.queue().tidy().await.unwrap();
    app.queue().tidy().await.unwrap();
    let left: HashSet<uuid::Uuid> = app
        .test
        .column("SELECT job_id FROM reservations")
        .await
        .into_iter()
        .collect();
    assert_eq!(left, HashSet::from([running.0.id.0, fresh.0.id.0]));
    assert_eq!(app.counter("messages").await, (0, 2));
}
