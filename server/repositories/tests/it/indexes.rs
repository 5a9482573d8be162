//! The queries of the hot way and of the lists find their rows by an index: on big tables none of them reads one from end to
//! end. What is measured are the repositories' own functions, with the plans Postgres really chooses, generic ones included.

use chrono::TimeDelta;
use domain::{
    ConversationId, JobId, Scope, UserId,
    views::{BotTransport, UserStatus},
};
use repositories::{
    PgConnection, audit,
    counters::{self, Claim, Use},
    jobs, ledger, messages,
    people::{self, Place, Sender},
    users::{self, Filter},
};
use sqlx::{Connection, Row};

use crate::{database::TestDatabase, fixtures::BOT};

/// Rows of each large table.
const ROWS: i64 = 20_000;

/// One in a hundred is in `updates` for work that is open; the rest is past.
async fn fill(test: &TestDatabase) {
    let uuid = |kind: &str, n: &str| format!("md5('{kind}' || ({n}))::uuid");
    let (user, chat, conversation) = (uuid("user", "n"), uuid("chat", "n"), uuid("conversation", "n"));
    // 40 messages in each of the conversations that have any.
    let talk = uuid("conversation", "n / 40");
    let job = uuid("job", "n");
    let series = format!("generate_series(0, {}) AS n", ROWS - 1);
    for sql in [
        format!(
            "INSERT INTO users (id, transport, external_id, name, username, plan_id, created_at, last_seen_at)
             SELECT {user}, 'telegram', n, 'Person ' || md5(n::text), 'user_' || n, '01930000-0000-7000-8000-000000000001',
                    now(), now() - n * interval '1 second' FROM {series}"
        ),
        format!("INSERT INTO chats (id, bot_id, external_id, kind, title, created_at) SELECT {chat}, '{BOT}', n, 'private', 'c', now() FROM {series}"),
        format!(
            "INSERT INTO conversations (id, chat_id, user_id, started_at, last_at)
             SELECT {conversation}, {chat}, {user}, now(), now() FROM {series}"
        ),
        format!(
            "INSERT INTO messages (id, created_at, conversation_id, author, text, tokens, in_context, job_id)
             SELECT md5('message' || n)::uuid, now() + n * interval '1 microsecond', {talk}, CASE n % 2 WHEN 0 THEN 'user' ELSE 'bot' END,
                    'text', 10, true, {job} FROM {series}"
        ),
        format!(
            "INSERT INTO updates (id, bot_id, update_id, kind, payload, received_at)
             SELECT {job}, '{BOT}', n, 'message', '{{}}', now() FROM {series}"
        ),
        format!(
            "INSERT INTO jobs (id, kind, lane, payload, state, finished_at)
             SELECT {job}, 'update', CASE n % 7 WHEN 0 THEN NULL ELSE 'lane ' || n / 4 END, '{{}}',
                    CASE WHEN n % 100 > 0 THEN 'done' WHEN n % 200 = 0 THEN 'ready' ELSE 'waiting' END,
                    CASE WHEN n % 100 > 0 THEN now() END FROM {series}"
        ),
        format!(
            "INSERT INTO counters (user_id, measure, period, starts_at, used)
             SELECT {user}, m, p, date_trunc(p, now(), 'UTC'), 1 FROM {series},
                    (VALUES ('messages', 'day'), ('tokens', 'day'), ('money', 'month')) AS kinds (m, p)"
        ),
        format!(
            "INSERT INTO scope_limits (scope, subject, measure, period, amount)
             SELECT 'user', {user}::text, 'tokens', 'month', 1000000 FROM {series}"
        ),
        format!(
            "INSERT INTO scope_counters (scope, subject, measure, period, starts_at, used, cap)
             SELECT 'user', {user}::text, 'tokens', 'month', date_trunc('month', now(), 'UTC'), 1, 1000000 FROM {series}"
        ),
        format!(
            "INSERT INTO reservations (job_id, user_id, day, month, messages, tokens, money, created_at)
             SELECT md5('held' || n)::uuid, {user}, now(), now(), 1, 1, 1, now() FROM {series}"
        ),
        format!(
            "INSERT INTO holds (call_id, scopes, subjects, measures, periods, starts, amounts, created_at)
             SELECT md5('held' || n)::uuid, '{{user}}', ARRAY[{user}::text], '{{tokens}}', '{{month}}', ARRAY[now()], '{{1}}', now() FROM {series}"
        ),
        format!(
            "INSERT INTO limit_boosts (user_id, measure, period, amount, until)
             SELECT {user}, 'tokens', 'month', 2000000, now() + interval '1 day' FROM {series}"
        ),
        format!(
            "INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens,
                                cached_tokens, reported, cost, attempts, finish, total_ms, felt_ms)
             SELECT {job}, now() - n * interval '1 minute', {user}, '{BOT}', {talk}, 'p', 'm', 1, 1, 0, true, 1, 1, 'stop', 1, 1 FROM {series}"
        ),
        format!("INSERT INTO errors (id, at, code, user_id) SELECT {job}, now() - n * interval '1 minute', 'BD-AI-DOWN', {user} FROM {series}"),
        format!("INSERT INTO participants (user_id, conversation_id) SELECT {user}, {} FROM {series}", uuid("conversation", "(n + 1) % 20000")),
        format!(
            "INSERT INTO audit (id, at, actor, action, target_kind, target_id, target_name, after, key_id, hash)
             SELECT 3 * n + m, now(), 'a', CASE m WHEN 1 THEN 'user.block' ELSE 'conversation.read' END,
                    CASE m WHEN 1 THEN 'user' ELSE 'conversation' END, {user}, 'b',
                    CASE m WHEN 1 THEN '{{}}' WHEN 2 THEN jsonb_build_object('user', {user}) ELSE jsonb_build_object('users', jsonb_build_array({user})) END,
                    'k', decode(repeat('00', 32), 'hex') FROM {series}, generate_series(1, 3) AS m"
        ),
        format!(r#"INSERT INTO deliveries (job_id, part, chat, body, message_id, begun_at) SELECT {job}, 0, '{BOT}/' || n / 40, '{{"text":"t","entities":[]}}', n, '-infinity' FROM {series}"#),
        format!(
            "INSERT INTO similar_answers (id, bot_id, space, user_id, question, vector, answer, provider, created_at, expires_at)
             SELECT {job}, '{BOT}', decode(repeat(lpad(to_hex(n % 100), 2, '0'), 32), 'hex'), {user}, 'q', '\\x0000803f', 'a', 'p',
                    now() - n * interval '1 second', now() + interval '1 hour' FROM {series}"
        ),
        format!(
            "INSERT INTO similar_looks (id, bot_id, at, user_id, question, near_user_id, near_question, likeness, hit)
             SELECT {job}, '{BOT}', now() - n * interval '1 second', {user}, 'q', {user}, 'q', 900, false FROM {series}"
        ),
        // Vacuumed as well, as a server does by itself: the search index collects new names in a list before it sorts them in.
        "VACUUM ANALYZE".to_owned(),
    ] {
        test.run(&sql).await;
    }
}

/// Runs `work` eight times on one connection (Postgres may change to a generic plan after five) and says which large tables it
/// read from end to end.
async fn end_to_end(test: &TestDatabase, work: impl AsyncFn(&mut PgConnection)) -> Vec<String> {
    // A new connection, since what is counted stays with one beyond the end of its transactions.
    let mut connection = PgConnection::connect(test.url()).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    // A helper process would count for itself, unseen by the view below.
    sqlx::query("SET LOCAL max_parallel_workers_per_gather = 0")
        .execute(&mut *tx)
        .await
        .unwrap();
    for _ in 0..8 {
        work(&mut tx).await;
    }
    sqlx::query(
        "SELECT relname::text, seq_tup_read FROM pg_stat_xact_user_tables
         WHERE seq_tup_read > 0 AND relname NOT IN ('plans', 'limits', 'bots', 'usage_rolled')",
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap()
    .into_iter()
    .map(|row| format!("{} ({} rows)", row.get::<String, _>(0), row.get::<i64, _>(1)))
    .collect()
}

macro_rules! check {
    ($test:expr, $($name:literal => $work:expr),+ $(,)?) => {{
        let mut faults = Vec::new();
        $(
            let read = end_to_end($test, $work).await;
            if !read.is_empty() { faults.push(format!("{}: {}", $name, read.join(", "))); }
        )+
        assert!(faults.is_empty(), "read from end to end\n{}", faults.join("\n"));
    }};
}

async fn id(test: &TestDatabase, kind: &str, n: i64) -> uuid::Uuid {
    test.one(&format!("SELECT md5('{kind}' || {n})::uuid")).await
}

#[tokio::test]
async fn no_query_of_the_hot_way_or_of_a_list_reads_a_large_table_from_end_to_end() {
    let test = TestDatabase::new().await;
    fill(&test).await;
    let now = test.now().await.unwrap();
    let user = UserId(id(&test, "user", 4242).await);
    let conversation = ConversationId(id(&test, "conversation", 100).await);
    let job = JobId(id(&test, "job", 4200).await);
    let sender = Sender {
        transport: BotTransport::Telegram,
        external_id: 4242,
        name: "Person",
        username: None,
        language: None,
    };
    let place = Place {
        bot: BOT,
        chat_external_id: 4242,
        kind: "private",
        title: "c",
        thread_id: 0,
    };
    // The measure itself: a query that does read a table from end to end is seen.
    let bad = end_to_end(&test, async |db| {
        sqlx::query("SELECT count(*) FROM users WHERE language = 'xx'")
            .fetch_one(db)
            .await
            .unwrap();
    })
    .await;
    assert_eq!(bad, [format!("users ({} rows)", ROWS * 8)]);

    check!(&test,
        "claim" => async |db| { assert_eq!(jobs::claim(db, "w", 4, 9.0, jobs::Which::All, &[]).await.unwrap().len(), 4); },
        "claim nothing" => async |db| {
            sqlx::query("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE state = 'ready'").execute(&mut *db).await.unwrap();
            assert!(jobs::claim(db, "w", 32, 9.0, jobs::Which::All, &[]).await.unwrap().is_empty());
        },
        "accept" => async |db| {
            let updates: Vec<_> = (0..5).map(|n| crate::fixtures::in_lane(1_000_000 + n, "lane 25")).collect();
            jobs::accept(db, BOT, &updates, now).await.unwrap();
        },
        "hold, end" => async |db| {
            for job in jobs::claim(db, "w", 2, 9.0, jobs::Which::All, &[]).await.unwrap() {
                assert!(jobs::hold(db, job.id, job.token).await.unwrap());
                assert!(jobs::end(db, job.id, job.token, job.lane.as_deref(), jobs::End::Done).await.unwrap().is_some());
            }
        },
        "heartbeat, cancelled" => async |db| {
            let tokens = [uuid::Uuid::new_v4()];
            jobs::heartbeat(db, &tokens, 9.0).await.unwrap();
            jobs::renew(db, &tokens, 9.0).await.unwrap();
            jobs::cancelled(db, &tokens).await.unwrap();
        },
        "cancel_lane" => async |db| { jobs::cancel_lane(db, "lane 25", job).await.unwrap(); },
        "lost" => async |db| { jobs::lost(db, 100).await.unwrap(); },
        "prune" => async |db| { assert_eq!(jobs::prune(db, 24).await.unwrap(), 0); },
        "meet" => async |db| { people::meet(db, &sender, &place, now).await.unwrap(); },
        "history" => async |db| { assert_eq!(messages::history(db, conversation, 300, 0, 200, None).await.unwrap().len(), 30); },
        "transcript" => async |db| {
            let page = messages::transcript(db, conversation, None, 20).await.unwrap().unwrap();
            let first = &page.0.messages[0];
            messages::transcript(db, conversation, Some((first.at, first.id)), 20).await.unwrap().unwrap();
        },
        "reserve, settle" => async |db| {
            let subjects = [(Scope::Bot, BOT.to_string()), (Scope::Deployment, String::new())];
            let bounds = counters::bounds(db, Some(user), &subjects, now).await.unwrap();
            assert_eq!(bounds.len(), 5, "{bounds:?}");
            assert!(bounds.iter().any(|bound| bound.cap == Some(2_000_000)), "{bounds:?}");
            let claims: Vec<_> = bounds.iter().map(|bound| Claim { bound, amount: 1 }).collect();
            assert!(counters::reserve(db, Some(user), &claims).await.unwrap().is_empty());
            counters::keep(db, job.into(), Some(user), &claims, None, now).await.unwrap();
            counters::reservation(db, job, uuid::Uuid::nil()).await.unwrap();
            let used = Use { messages: 1, tokens: 1, money: 1, images: 0 };
            assert!(counters::settle(db, job.into(), used, now).await.unwrap().done);
        },
        "deliveries" => async |db| {
            repositories::deliveries::load(db, job).await.unwrap();
            let chat = format!("{BOT}/{}", ROWS / 40 - 1);
            assert!(repositories::deliveries::known_ids(db, job, BOT, &chat, ROWS - 100, 9.0).await.unwrap().in_chat.is_none());
            // Where another bot's ids are much higher: its messages are not gone through.
            let other = domain::BotId(uuid::Uuid::nil());
            let chat = format!("{other}/-1001234567890");
            assert!(repositories::deliveries::known_ids(db, job, other, &chat, 1, 9.0).await.unwrap().in_row.is_none());
            assert!(repositories::deliveries::known_ids(db, job, other, &format!("{other}/5"), 1, 9.0).await.unwrap().in_chat.unwrap().ids.is_empty());
        },
        "conversations and failures of a user" => async |db| {
            let before = Some((now + TimeDelta::hours(1), conversation));
            for before in [None, before] {
                assert_eq!(messages::conversations_of(db, user, before, 50).await.unwrap().len(), 2);
            }
            assert_eq!(ledger::failures_of(db, user, 20).await.unwrap().len(), 1);
        },
        "similar questions" => async |db| {
            let (space, since) = ([9; 32], now - TimeDelta::minutes(5));
            assert_eq!(repositories::similar::load(db, &space, None, now, 50).await.unwrap().len(), 50);
            repositories::similar::load(db, &space, Some(since), now, 10_000).await.unwrap();
            assert!(repositories::similar::get(db, job.0, now).await.unwrap().is_some());
            assert_eq!(repositories::similar::looks(db, BOT, 100).await.unwrap().len(), 100);
        },
        "what staff did with a user" => async |db| {
            assert_eq!(audit::about_user(db, user, 20).await.unwrap().len(), 3);
        },
    );
}

#[tokio::test]
async fn no_list_of_users_reads_all_of_them() {
    let test = TestDatabase::new().await;
    fill(&test).await;
    test.run("UPDATE users SET blocked_at = now(), blocked_reason = 'x' WHERE external_id % 50 = 0")
        .await;
    test.run("VACUUM ANALYZE users").await;
    let now = test.now().await.unwrap();
    let all = || Filter {
        search: "",
        status: UserStatus::Any,
        plan: None,
        after: None,
    };
    let list = async |db: &mut PgConnection, filter: Filter<'_>, rows: usize| {
        assert_eq!(users::list(db, &filter, now, 51).await.unwrap().len(), rows);
    };
    let last = (now - TimeDelta::hours(2), UserId(id(&test, "user", 1).await));
    check!(&test,
        "first page" => async |db| list(db, all(), 51).await,
        "page after" => async |db| list(db, Filter { after: Some(last), ..all() }, 51).await,
        "blocked" => async |db| list(db, Filter { status: UserStatus::Blocked, ..all() }, 51).await,
        "a rare name" => async |db| list(db, Filter { search: "user_14142", ..all() }, 1).await,
        "no such name" => async |db| list(db, Filter { search: "rumpelstiltskin", ..all() }, 0).await,
        "a frequent name" => async |db| list(db, Filter { search: "person", ..all() }, 51).await,
    );
}

#[tokio::test]
async fn the_queue_is_measured_and_the_day_is_summed_up_without_reading_what_is_past() {
    let test = TestDatabase::new().await;
    fill(&test).await;
    let now = test.now().await.unwrap();
    let hour = now - TimeDelta::hours(1);

    check!(&test,
        "queue state, every five seconds" => async |db| { assert!(jobs::queue_state(db).await.unwrap().waiting > 0); },
        "sums of the day" => async |db| {
            repositories::rollups::sums(db, hour).await.unwrap();
            repositories::rollups::spent(db, hour).await.unwrap();
        },
        "failures by code" => async |db| { ledger::failures_by_code(db, hour).await.unwrap(); },
        "hours" => async |db| { ledger::hours(db, now).await.unwrap(); },
    );
}

#[tokio::test]
async fn the_log_of_calls_is_read_by_its_filters() {
    use domain::views::requests::Outcome;
    use repositories::requests::{self, Filter};

    let test = TestDatabase::new().await;
    fill(&test).await;
    test.run("UPDATE usage SET error_code = 'BD-AI-DOWN' WHERE abs(hashtext(job_id::text)) % 200 = 0")
        .await;
    test.run("UPDATE usage SET trace_id = md5('trace' || (abs(hashtext(job_id::text)) % 10000))::uuid")
        .await;
    test.run("VACUUM ANALYZE usage").await;
    let user = UserId(id(&test, "user", 4242).await);
    let now = test.now().await.unwrap();
    let job = id(&test, "job", 77).await;
    let conversation = ConversationId(id(&test, "conversation", 5).await);
    // The months that were looked into, of five.
    let months = async |db: &mut PgConnection| -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_xact_user_tables
             WHERE starts_with(relname, 'usage_2') AND coalesce(idx_scan, 0) + seq_scan > 0",
        )
        .fetch_one(db)
        .await
        .unwrap()
    };
    let list = async |db: &mut PgConnection, filter: Filter| requests::list(db, &filter, 51).await.unwrap().len();
    check!(&test,
        "first page" => async |db| {
            assert_eq!(list(db, Filter::default()).await, 51);
            assert!(months(db).await > 1);
        },
        "page after" => async |db| {
            let after = Some((now - TimeDelta::days(3), uuid::Uuid::max()));
            assert_eq!(list(db, Filter { after, ..Filter::default() }).await, 51);
            assert_eq!(months(db).await, 1);
        },
        "of a time" => async |db| {
            let (from, until) = (Some(now - TimeDelta::hours(3)), Some(now - TimeDelta::hours(2)));
            assert_eq!(list(db, Filter { from, until, ..Filter::default() }).await, 51);
            assert_eq!(months(db).await, 1);
        },
        "of a trace, or by its own id" => async |db| {
            let trace: uuid::Uuid = sqlx::query_scalar("SELECT trace_id FROM usage WHERE job_id = $1").bind(job).fetch_one(&mut *db).await.unwrap();
            for id in [trace, job] {
                assert!(list(db, Filter { id: Some(id), ..Filter::default() }).await >= 1);
            }
        },
        "failed" => async |db| { assert_eq!(list(db, Filter { outcome: Outcome::Failed, ..Filter::default() }).await, 51); },
        "of a bot" => async |db| { assert_eq!(list(db, Filter { bot: Some(BOT), ..Filter::default() }).await, 51); },
        "of a user" => async |db| { assert_eq!(list(db, Filter { user: Some(user), ..Filter::default() }).await, 1); },
        "of a conversation" => async |db| {
            assert_eq!(list(db, Filter { conversation: Some(conversation), ..Filter::default() }).await, 40);
            // Nor is all the ledger gone through by another index.
            let fetched: i64 = sqlx::query_scalar("SELECT sum(idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables WHERE starts_with(relname, 'usage_2')")
                .fetch_one(&mut *db).await.unwrap();
            assert!(fetched <= 8 * 40, "{fetched}");
        },
        "one" => async |db| { assert_eq!(requests::get(db, job).await.unwrap().unwrap().id, job); },
    );
}

#[tokio::test]
async fn the_pages_of_jobs_and_bots_do_not_read_what_is_past() {
    use domain::views::jobs::JobList;
    use repositories::{bot_pages, job_pages};

    let test = TestDatabase::new().await;
    fill(&test).await;
    // As busy a day as there was: everything was finished long enough ago not to be of this hour, and some of it never was.
    test.run("UPDATE jobs SET finished_at = now() - interval '5 hours' WHERE state = 'done'")
        .await;
    test.run("UPDATE jobs SET state = CASE WHEN seq % 3 = 0 THEN 'discarded' ELSE 'dead' END, last_error = 'broke', discarded_at = now() WHERE seq % 400 = 2")
        .await;
    test.run("UPDATE jobs SET attempts = 3 WHERE state = 'ready' AND seq % 3 = 0")
        .await;
    test.run("VACUUM ANALYZE jobs").await;
    let now = test.now().await.unwrap();
    let page = async |db: &mut PgConnection, list: JobList, after: bool| {
        let filter = job_pages::Filter {
            list,
            bot: None,
            words: if after { "bro" } else { "" },
            after: after.then(|| (now, uuid::Uuid::nil())),
        };
        let ids = job_pages::ids(db, &filter, 51).await.unwrap();
        job_pages::get(db, &ids).await.unwrap();
        ids.len()
    };
    check!(&test,
        "depth" => async |db| { assert!(job_pages::depth(db).await.unwrap().dead > 10); },
        "the last minute" => async |db| { job_pages::last_minute(db).await.unwrap(); },
        "minutes" => async |db| { assert_eq!(job_pages::minutes(db).await.unwrap().len(), 60); },
        "dead" => async |db| { assert!(page(db, JobList::Dead, false).await > 10); },
        "dead, by words" => async |db| { assert!(page(db, JobList::Dead, true).await > 10); },
        "discarded" => async |db| { assert!(page(db, JobList::Discarded, false).await > 5); },
        "retrying" => async |db| { assert!(page(db, JobList::Retrying, false).await > 10); },
        "running" => async |db| { page(db, JobList::Running, false).await; },
        "waiting" => async |db| { assert_eq!(page(db, JobList::Waiting, false).await, 51); },
        "prune" => async |db| { job_pages::prune_discarded(db, 30).await.unwrap(); },
        "bots" => async |db| { bot_pages::health(db).await.unwrap(); },
    );
}

#[tokio::test]
async fn what_a_limit_would_do_is_found_without_reading_what_does_not_concern_it() {
    use domain::LimitKind;
    use repositories::limit_reach::{self, Whose};

    let test = TestDatabase::new().await;
    fill(&test).await;
    let now = test.now().await.unwrap();
    let user = UserId(id(&test, "user", 4242).await);
    let hour = now - TimeDelta::hours(1);
    check!(&test,
        "of one user" => async |db| {
            for kind in [LimitKind::TokensPerMonth, LimitKind::MessagesPerDay] {
                let people = limit_reach::people(db, Whose::User(user), kind, Some(1), None, now).await.unwrap();
                // Of tokens there is a boost, which holds still.
                let stopped = i64::from(kind == LimitKind::MessagesPerDay);
                assert_eq!((people.count, people.stopped, people.heaviest[0].used), (1, stopped, 1), "{kind}");
            }
        },
        "of a bot" => async |db| {
            let window = limit_reach::window(db, Scope::Bot, &BOT.to_string(), LimitKind::TokensPerDay, "UTC", now).await.unwrap();
            assert_eq!(window.used, 0);
            let (count, heaviest) =
                limit_reach::users_since(db, Scope::Bot, &BOT.to_string(), LimitKind::TokensPerDay, hour).await.unwrap();
            assert_eq!((count, heaviest.len(), heaviest[0].used), (60, 5, 2));
        },
        "its history" => async |db| {
            let past = audit::about(db, "user", &user.to_string(), &["user.block"], 20).await.unwrap();
            assert_eq!(past.len(), 1);
        },
    );
}
