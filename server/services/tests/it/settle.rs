use domain::{ErrorCode, LimitKind};
use futures::future::join_all;
use gateway::{Finish, GatewayError};
use services::{Change, Ended, Error, Reply};

use crate::app::{App, answer, complete, rich};

#[tokio::test]
async fn answer_usage_settlement_and_what_is_to_be_sent_are_written_together() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    assert_eq!(question.request.messages.last().unwrap().text, "hello");
    app.clock.advance(chrono::TimeDelta::seconds(2));
    let bodies = [rich("one"), rich("two")];
    assert!(
        app.chats()
            .settle(
                &job,
                &incoming,
                &known,
                &question,
                &complete("one two", 30, 20),
                &bodies
            )
            .await
            .unwrap()
    );

    let line: (String, i64, i64, i64, String, i64) = sqlx::query_as(
        "SELECT alias, prompt_tokens, completion_tokens, cost, finish, felt_ms FROM usage WHERE job_id = $1",
    )
    .bind(job.id.0)
    .fetch_one(app.test.pool())
    .await
    .unwrap();
    assert_eq!(
        line,
        (crate::app::MODEL.to_owned(), 30, 20, 70_000, "stop".to_owned(), 2000)
    );
    let said: Vec<(String, String, bool)> =
        sqlx::query_as("SELECT author, text, in_context FROM messages ORDER BY created_at")
            .fetch_all(app.test.pool())
            .await
            .unwrap();
    assert_eq!(
        said,
        [
            ("user".to_owned(), "hello".to_owned(), true),
            ("bot".to_owned(), "one two".to_owned(), true)
        ]
    );
    let parts = app.chats().parts(job.id).await.unwrap();
    assert_eq!(
        parts
            .iter()
            .map(|part| part.body.clone().unwrap().text)
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(app.counter("tokens").await, (50, 0));
    assert_eq!(app.counter("money").await, (70_000, 0));
    assert_eq!(app.counter("messages").await, (1, 0));
}

/// Everything that a settlement writes.
async fn written(app: &App) -> [i64; 6] {
    [
        app.test.count("usage").await,
        app.test.count("messages").await,
        app.test.count("deliveries").await,
        app.test.count("errors").await,
        app.test.count("counters WHERE used > 0").await,
        app.test.count("reservations").await,
    ]
}

#[tokio::test]
async fn with_a_lost_lease_nothing_is_written() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    app.test
        .run("UPDATE jobs SET lease_until = now() - interval '1 second'")
        .await;
    assert_eq!(app.queue().recover().await.unwrap(), 1);
    let second = app
        .queue()
        .claim("another", 9, services::Which::All, &[])
        .await
        .unwrap()
        .remove(0);
    assert_eq!((second.id, second.attempt), (job.id, 2));

    let late = complete("late", 30, 20);
    assert!(
        !app.chats()
            .settle(&job, &incoming, &known, &question, &late, &[rich("late")])
            .await
            .unwrap()
    );
    let reply = Reply {
        text: "late",
        parts: &[rich("late")],
        code: Some(ErrorCode::AiDown),
        change: Change::Renew,
    };
    assert!(!app.chats().reply(&job, &incoming, &known, reply).await.unwrap());
    app.chats().begin_preview(&job, &incoming.chat_key(), 0).await.unwrap();
    assert_eq!(written(&app).await, [0, 0, 0, 0, 0, 1]);
    // Nor does it say where a message of the other worker stands.
    app.chats()
        .begin_preview(&second, &incoming.chat_key(), 0)
        .await
        .unwrap();
    app.chats().sent(&job, 0, &[5]).await.unwrap();
    assert_eq!(app.chats().parts(job.id).await.unwrap()[0].message_id, None);
    assert_eq!(app.test.count("conversations").await, 1);
    for ended in [
        Ended::Done,
        Ended::Delivered(vec![5]),
        Ended::Dead { error: "x".to_owned() },
    ] {
        assert!(!app.queue().end(&job, ended).await.unwrap());
    }
    assert_eq!(
        app.counter("messages").await,
        (0, 1),
        "the other worker's budget was given away"
    );

    // The other worker finishes as if nothing had been.
    let (known, question) = app.ask(&second, &incoming).await;
    assert!(
        app.chats()
            .settle(
                &second,
                &incoming,
                &known,
                &question,
                &complete("x", 1, 1),
                &[rich("x")]
            )
            .await
            .unwrap()
    );
    assert!(app.queue().end(&second, Ended::Delivered(vec![9])).await.unwrap());
    assert_eq!(written(&app).await, [1, 2, 1, 0, 3, 0]);
    assert_eq!(app.chats().parts(job.id).await.unwrap()[0].message_id, Some(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_is_billed_once_however_often_it_is_settled() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let chats = app.chats();
    let settle = |n: i64| {
        let (chats, job, incoming, known, question) = (&chats, &job, &incoming, &known, &question);
        async move {
            chats
                .settle(job, incoming, known, question, &complete("x", 10, n), &[rich("x")])
                .await
        }
    };
    let all = join_all((0..8).map(settle)).await;
    let won: Vec<usize> = (0..8).filter(|n| matches!(all[*n], Ok(true))).collect();
    assert_eq!(won.len(), 1, "{all:?}");
    assert!(
        all.iter().all(|one| matches!(one, Ok(true) | Err(Error::Internal(_)))),
        "{all:?}"
    );
    let used = 10 + i64::try_from(won[0]).unwrap();
    assert_eq!(app.counter("tokens").await, (used, 0));
    assert_eq!(written(&app).await, [1, 2, 1, 0, 3, 0]);
    // Nor does the end of the job, or housekeeping, settle it once more.
    app.queue()
        .end(
            &job,
            Ended::Dead {
                error: "cannot be sent".to_owned(),
            },
        )
        .await
        .unwrap();
    app.queue().tidy().await.unwrap();
    assert_eq!(app.counter("tokens").await, (used, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_outlives_a_connection_that_is_cut_while_it_is_stored() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let mut lock = app.test.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM reservations FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let cut = async {
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while app.test.one::<i64>(terminate).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        lock.rollback().await.unwrap();
    };
    let chats = app.chats();
    let answer = complete("x", 10, 5);
    let bodies = [rich("x")];
    let (settled, ()) = tokio::join!(chats.settle(&job, &incoming, &known, &question, &answer, &bodies), cut);
    assert!(settled.unwrap());
    assert_eq!(written(&app).await, [1, 2, 1, 0, 3, 0]);
    assert_eq!(app.counter("tokens").await, (15, 0));
}

#[tokio::test]
async fn a_settlement_that_fails_half_way_leaves_nothing() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    // The last thing written is refused.
    app.test
        .run("ALTER TABLE deliveries ADD CONSTRAINT broken CHECK (part < 0) NOT VALID")
        .await;
    let failed = app
        .chats()
        .settle(&job, &incoming, &known, &question, &complete("x", 1, 1), &[rich("x")])
        .await;
    assert!(matches!(failed, Err(Error::Database(_))), "{failed:?}");
    assert_eq!(written(&app).await, [0, 0, 0, 0, 0, 1]);
    assert_eq!(app.counter("tokens").await.0, 0);
    app.test.run("ALTER TABLE deliveries DROP CONSTRAINT broken").await;
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &question, &complete("x", 1, 1), &[rich("x")])
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_failure_is_told_to_staff_with_its_cause() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let failure = GatewayError::Refused {
        status: Some(400),
        detail: "context too long".to_owned(),
    };
    let failed = answer("", Finish::Failed, (0, 0), Some(failure));
    assert!(
        app.chats()
            .settle(&job, &incoming, &known, &question, &failed, &[rich("sorry")])
            .await
            .unwrap()
    );
    let (code, cause): (String, String) = sqlx::query_as("SELECT code, cause FROM errors WHERE job_id = $1")
        .bind(job.id.0)
        .fetch_one(app.test.pool())
        .await
        .unwrap();
    assert_eq!(code, "BD-AI-REFUSED");
    assert!(cause.contains("context too long"), "{cause}");
    assert_eq!(app.test.count("messages WHERE in_context").await, 0);
    assert_eq!(
        app.test
            .count("messages WHERE error_code = 'BD-AI-REFUSED' AND author = 'bot'")
            .await,
        1
    );
}

#[tokio::test]
async fn nul_from_a_provider_never_keeps_an_answer_from_being_stored() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let failure = GatewayError::Cut {
        detail: "it said \0".to_owned(),
        source: None,
    };
    let answer = answer("a\0b", Finish::Cut, (1, 1), Some(failure));
    let settled = app
        .chats()
        .settle(&job, &incoming, &known, &question, &answer, &[rich("a\0b")])
        .await;
    assert!(matches!(settled, Ok(true)), "{settled:?}");
}

#[tokio::test]
async fn a_refusal_is_kept_with_its_code_and_costs_nothing() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 0).await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, _) = app.begin(&job, &incoming).await;
    let reply = Reply {
        text: "no more today",
        parts: &[rich("no more today")],
        code: Some(ErrorCode::LimitDay),
        change: Change::None,
    };
    assert!(app.chats().reply(&job, &incoming, &known, reply).await.unwrap());
    assert_eq!(written(&app).await, [0, 2, 1, 1, 0, 0]);
    let detail = app
        .users()
        .get(&app.owner().await, known.user, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        detail
            .errors
            .iter()
            .map(|error| error.code.as_str())
            .collect::<Vec<_>>(),
        ["BD-LIMIT-DAY"]
    );
    assert_eq!(detail.conversations.rows.len(), 1);
    assert_eq!(app.test.count("messages").await, 2);
}
