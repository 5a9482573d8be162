use chrono::TimeDelta;
use domain::{
    ErrorCode, Money, Past, Permission, Price, Role, TraceId,
    views::requests::{self, BilledAt, RequestQuery, RequestRow},
};
use futures::StreamExt;
use gateway::{Finish, GatewayError, Outcome, Usage};

use crate::{
    app::{App, answer, complete, rich},
    calls,
};

#[tokio::test]
async fn the_log_tells_who_asked_what_it_cost_and_what_failed() {
    let app = App::new().await;
    let owner = app.owner().await;
    let anna = app.talk(7, "hi", "fine").await;
    app.talk(8, "hi", "fine").await;
    let (job, incoming) = app.job(7, 7, "again").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let failure = GatewayError::Refused {
        status: Some(400),
        detail: "no".to_owned(),
    };
    let failed = answer("", Finish::Failed, (0, 0), Some(failure));
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &question, &failed, &[rich("sorry")])
            .await
            .unwrap()
    );

    let list = async |query: RequestQuery| app.requests().list(&owner, query).await.unwrap().rows;
    let all = list(RequestQuery::default()).await;
    assert_eq!(all.len(), 3);
    assert_eq!(
        (all[0].id, all[0].code.as_deref(), all[0].finish.as_str()),
        (job.id.0, Some("BD-AI-REFUSED"), "failed")
    );
    let good = &all[2];
    assert_eq!(
        good.user.as_ref().map(|user| (user.id, user.name.as_str())),
        Some((anna.user, "Person 7"))
    );
    assert_eq!(
        (good.prompt_tokens, good.completion_tokens, good.cost.nanos()),
        (10, 10, 30_000)
    );
    let at = good.billed_at;
    assert_eq!(
        [at.input, at.cached_input, at.output].map(|price| price.unwrap().to_string()),
        ["$1.00", "$1.00", "$2.00"]
    );
    assert_eq!(
        (good.alias.as_str(), good.first_token_ms, good.key.as_ref()),
        ("tester", Some(3), None)
    );
    let tried: Vec<(&str, i64)> = good.tries.iter().map(|one| (one.model.as_str(), one.ms)).collect();
    assert_eq!((good.model.as_str(), tried), ("tester-1", vec![("tester-1", 7)]));

    let failed = RequestQuery {
        outcome: requests::Outcome::Failed,
        ..RequestQuery::default()
    };
    assert_eq!(list(failed).await.len(), 1);
    let good = RequestQuery {
        outcome: requests::Outcome::Good,
        user: Some(anna.user),
        ..RequestQuery::default()
    };
    assert_eq!(list(good).await.len(), 1);
    let code = RequestQuery {
        code: Some(" bd-ai-refused ".to_owned()),
        ..RequestQuery::default()
    };
    assert_eq!(list(code).await.len(), 1);
    let model = RequestQuery {
        model: Some("another".to_owned()),
        ..RequestQuery::default()
    };
    assert!(list(model).await.is_empty());
    assert_eq!(app.requests().get(&owner, job.id.0).await.unwrap().unwrap(), all[0]);
    assert_eq!(app.requests().get(&owner, uuid::Uuid::now_v7()).await.unwrap(), None);
    assert!(ErrorCode::ALL.iter().any(|code| code.as_str() == "BD-AI-REFUSED"));
}

/// Every count and every price different from the others.
fn of_everything() -> (Usage, Price) {
    let usage = Usage {
        prompt_tokens: 100,
        completion_tokens: 90,
        cached_tokens: 10,
        reasoning_tokens: 20,
        audio_input_tokens: 30,
        audio_output_tokens: 40,
        images: 2,
    };
    let nanos = Money::from_nanos;
    let price = Price {
        input: nanos(1),
        cached_input: nanos(2),
        output: nanos(3),
        reasoning: Some(nanos(4)),
        image: nanos(5),
        audio_input: nanos(6),
        audio_output: nanos(7),
    };
    (usage, price)
}

fn holds_everything(row: &RequestRow) {
    let (usage, price) = of_everything();
    assert_eq!(
        (row.prompt_tokens, row.completion_tokens, row.cached_tokens),
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
    );
    assert_eq!(
        [
            row.reasoning_tokens,
            row.audio_input_tokens,
            row.audio_output_tokens,
            row.images
        ],
        [20, 30, 40, 2].map(Some)
    );
    let billed_at = BilledAt {
        input: Some(price.input),
        cached_input: Some(price.cached_input),
        output: Some(price.output),
        reasoning: price.reasoning,
        image: Some(price.image),
        audio_input: Some(price.audio_input),
        audio_output: Some(price.audio_output),
    };
    assert_eq!(row.billed_at, billed_at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_call_keeps_every_count_and_every_price_that_it_was_billed_at() {
    let app = App::new().await;
    let support = app.staff(Role::Support).await;
    let support = app.actor(support, Permission::ReadRequests).await.unwrap();
    let (usage, price) = of_everything();
    // Of a bot.
    let (job, incoming) = app.job(7, 7, "hi").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let mut said = complete("fine", 0, 0);
    (said.usage, said.price) = (usage, price);
    let bodies = [rich("fine")];
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &question, &said, &bodies)
            .await
            .unwrap()
    );
    holds_everything(&app.requests().get(&support, job.id.0).await.unwrap().unwrap());
    // Of another program; reasoning without a price of its own costs as other output.
    let (stop, task) = calls::writer(&app);
    let key = calls::key(&app).await;
    for price in [
        price,
        Price {
            reasoning: None,
            ..price
        },
    ] {
        let call = calls::begun(&app.calls(), key).await;
        let id = call.id();
        let outcome = Outcome {
            usage,
            price,
            ..calls::outcome(Finish::Complete("stop".to_owned()), 0, 0)
        };
        app.calls().finish(call, outcome, None, 200);
        calls::until(&app, &format!("usage WHERE job_id = '{id}'"), 1).await;
        let mut row = app.requests().get(&support, id).await.unwrap().unwrap();
        if price.reasoning.is_none() {
            assert_eq!(row.billed_at.reasoning, Some(price.output));
            row.billed_at.reasoning = of_everything().1.reasoning;
        }
        holds_everything(&row);
    }
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn pages_of_the_log_hold_every_call_once() {
    let app = App::new().await;
    let owner = app.owner().await;
    app.talk(7, "hi", "fine").await;
    // Many at the same moment: the order needs more than the time.
    app.test
        .run("INSERT INTO usage SELECT (md5(n::text))::uuid, at, user_id, bot_id, conversation_id, provider, model, 1, 1, 0, true, 1, 1, 'stop', 1, 1, 1
              FROM usage, generate_series(1, 119) AS n")
        .await;
    let (mut seen, mut after, mut pages) = (std::collections::BTreeSet::new(), None, 0);
    loop {
        let page = app
            .requests()
            .list(
                &owner,
                RequestQuery {
                    after,
                    ..RequestQuery::default()
                },
            )
            .await
            .unwrap();
        pages += 1;
        assert!(page.rows.iter().all(|row| seen.insert(row.id)), "twice");
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (120, 3));
}

#[tokio::test]
async fn the_overview_says_the_same_before_and_after_the_hours_are_summed_up() {
    let app = App::new().await;
    let owner = app.owner().await;
    // Early in the day and the month, so that what follows is of the same.
    let midnight = domain::Period::Month.reset(app.now());
    app.clock.advance(midnight - app.now() + TimeDelta::minutes(10));
    app.talk(7, "hi", "fine").await;
    app.clock.advance(TimeDelta::hours(2));
    app.talk(8, "hi", "fine").await;
    let before = app.overview().today(&owner).await.unwrap();
    app.overview().roll_up().await.unwrap();
    assert_eq!(
        app.test.count("usage_hours").await,
        1,
        "the running hour is not summed up"
    );
    let after = app.overview().today(&owner).await.unwrap();
    assert_eq!(after, before);
    assert_eq!(
        (after.tokens, after.cost.nanos(), after.cost_month.nanos()),
        (40, 60_000, 60_000)
    );
    app.clock.advance(TimeDelta::hours(2));
    let other = app.replica(&app.secret);
    let (one, two) = (app.overview(), other.overview());
    let (first, second) = tokio::join!(one.roll_up(), two.roll_up());
    first.unwrap();
    second.unwrap();
    assert_eq!(app.test.count("usage_hours").await, 2);
    let today = app.overview().today(&owner).await.unwrap();
    assert_eq!(
        (
            today.tokens,
            today.p50_ms,
            today.hours.iter().map(|hour| hour.messages).sum::<i64>()
        ),
        (40, before.p50_ms, 2)
    );
}

#[tokio::test]
async fn a_long_history_is_summed_up_in_turns() {
    let app = App::new().await;
    app.talk(7, "hi", "fine").await;
    app.test
        .run("INSERT INTO usage SELECT gen_random_uuid(), at - n * interval '1 hour', user_id, bot_id, conversation_id, provider, model, 1, 1, 0, true, 1, 1, 'stop', 1, 1, 1
              FROM usage, generate_series(2, 31) AS n")
        .await;
    assert!(app.overview().roll_up().await.unwrap(), "there is more");
    assert_eq!(app.test.count("usage_hours").await, 24);
    assert!(!app.overview().roll_up().await.unwrap());
    assert_eq!(app.test.count("usage_hours").await, 30);
}

#[tokio::test]
async fn the_log_is_bounded_by_time_from_the_first_moment_to_before_the_last() {
    let app = App::new().await;
    let owner = app.owner().await;
    app.talk(7, "hi", "fine").await;
    // One an hour for five days and more, besides that of now.
    app.test
        .run(&format!(
            "INSERT INTO usage SELECT gen_random_uuid(), timestamptz '{}' - n * interval '1 hour', user_id, bot_id, conversation_id, provider, model,
                    1, 1, 0, true, 1, 1, 'stop', 1, 1, 1 FROM usage, generate_series(1, 130) AS n",
            app.now()
        ))
        .await;
    let moment = |hours: i64| Some(app.now() - TimeDelta::hours(hours));
    let text = |at: Option<chrono::DateTime<chrono::Utc>>| at.map(|at| at.format("%Y-%m-%dT%H:%M:%S").to_string());
    let all = async |query: RequestQuery| {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = app
                .requests()
                .list(&owner, RequestQuery { after, ..query.clone() })
                .await
                .unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.at));
            match page.next {
                Some(next) => after = Some(next),
                None => return seen,
            }
        }
    };
    let between = |from, to| RequestQuery {
        from: text(from),
        to: text(to),
        ..RequestQuery::default()
    };
    // More than a page of them.
    let seen = all(between(moment(100), moment(20))).await;
    assert_eq!(seen.len(), 80);
    assert!(seen.is_sorted_by(|a, b| a > b));
    assert_eq!(all(between(moment(3), None)).await.len(), 4);
    let past = |past| RequestQuery {
        past,
        ..RequestQuery::default()
    };
    assert_eq!(all(past(Past::Day)).await.len(), 25);
    assert_eq!(all(past(Past::All)).await.len(), 131);
    // What is said in so many words counts.
    let both = RequestQuery {
        past: Past::Hour,
        ..between(moment(3), None)
    };
    assert_eq!(all(both).await.len(), 4);
    for bad in [
        between(moment(3), moment(3)),
        between(moment(3), moment(4)),
        RequestQuery {
            from: Some("yesterday".to_owned()),
            ..RequestQuery::default()
        },
        RequestQuery {
            to: Some("2026-11-31T10:00".to_owned()),
            ..RequestQuery::default()
        },
    ] {
        let refused = app.requests().list(&owner, bad).await;
        assert!(matches!(refused, Err(services::Error::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn an_export_holds_every_call_once_and_is_recorded_before_any_is_read() {
    let app = App::new().await;
    let owner = app.owner().await;
    app.talk(7, "hi", "fine").await;
    app.test
        .run("INSERT INTO usage SELECT (md5(n::text))::uuid, at, user_id, bot_id, conversation_id, provider, model, 1, 1, 0, true, 1, 1, 'stop', 1, 1, 1
              FROM usage, generate_series(1, 1199) AS n")
        .await;
    let query = RequestQuery {
        outcome: requests::Outcome::Good,
        // Of a page of the list; the file begins with the first.
        after: Some("1~x".to_owned()),
        ..RequestQuery::default()
    };
    let batches = app.requests().export(&owner, query, &["who", "cost"]).await.unwrap();
    let recorded = "audit WHERE action = 'requests.export' AND after->>'outcome' = 'good' AND after->'columns' = '[\"who\", \"cost\"]'";
    assert_eq!(app.test.count(recorded).await, 1);
    let batches: Vec<Vec<RequestRow>> = batches.map(Result::unwrap).collect().await;
    let ids: std::collections::BTreeSet<_> = batches.iter().flatten().map(|row| row.id).collect();
    assert_eq!(ids.len(), 1200);
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [500, 500, 200]);
    let wrong = RequestQuery {
        from: Some("then".to_owned()),
        ..RequestQuery::default()
    };
    assert!(app.requests().export(&owner, wrong, &[]).await.is_err());
    assert_eq!(app.test.count("audit WHERE action = 'requests.export'").await, 1);
}

#[tokio::test]
async fn a_call_is_found_by_the_trace_it_was_part_of() {
    let app = App::new().await;
    let support = app.staff(Role::Support).await;
    let support = app.actor(support, Permission::ReadRequests).await.unwrap();
    let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
    services::within_trace(Some(trace), app.talk(7, "hi", "fine")).await;
    app.talk(8, "hi", "fine").await;
    let (stop, task) = calls::writer(&app);
    let key = calls::key(&app).await;
    let service = app.calls();
    let call = services::within_trace(Some(trace), calls::begun(&service, key)).await;
    let id = call.id();
    let outcome = calls::outcome(Finish::Complete("stop".to_owned()), 1, 1);
    // Where it ends is of no account: it ends in a task of its own.
    app.calls().finish(call, outcome, None, 200);
    calls::until(&app, &format!("usage WHERE job_id = '{id}'"), 1).await;
    stop.send(()).unwrap();
    task.await.unwrap();
    let found = async |code: &str| {
        let code = Some(code.to_owned());
        let rows = app
            .requests()
            .list(
                &support,
                RequestQuery {
                    code,
                    ..RequestQuery::default()
                },
            )
            .await;
        rows.unwrap().rows
    };
    let of_trace = found(&trace.to_string()).await;
    assert_eq!(of_trace.len(), 2);
    assert!(of_trace.iter().all(|row| row.trace == Some(trace)));
    assert_eq!(found(&trace.as_uuid().to_string().to_uppercase()).await.len(), 2);
    let by_id = found(&id.to_string()).await;
    assert_eq!(by_id.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
    assert_eq!(found(&uuid::Uuid::from_u128(7).to_string()).await.len(), 0);
}
