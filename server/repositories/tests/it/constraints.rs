//! What may be is said by the schema, so that no path of the program can store anything else.

use sqlx::AssertSqlSafe;

use crate::{
    database::TestDatabase,
    fixtures::{self, BOT},
};

/// Runs the statement, and says which constraint refused it.
async fn refused_by(test: &TestDatabase, sql: &str) -> String {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(test.pool()).await {
        Ok(_) => format!("nothing refused: {sql}"),
        Err(sqlx::Error::Database(error)) => error
            .constraint()
            .map_or_else(|| error.message().to_owned(), str::to_owned),
        Err(other) => panic!("{sql}: {other}"),
    }
}

async fn check(test: &TestDatabase, cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, constraint) in cases {
        let by = refused_by(test, sql).await;
        if by != *constraint {
            wrong.push(format!("{sql}\n  expected {constraint}, got {by}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const FREE: &str = "'01930000-0000-7000-8000-000000000001'";

#[tokio::test]
async fn plans_and_limits() {
    let test = TestDatabase::new().await;
    check(
        &test,
        &[
            ("UPDATE limits SET amount = -1", "limits_amount_check"),
            (
                "UPDATE limits SET period = 'year' WHERE measure = 'money'",
                "limits_period_check",
            ),
            ("UPDATE plans SET is_default = true", "plans_one_default"),
            (
                "INSERT INTO plans (id, name, created_at) VALUES (gen_random_uuid(), 'FREE', now())",
                "plans_by_name",
            ),
        ],
    )
    .await;
    // Nothing let through is a limit of its own kind.
    assert!(test.run("UPDATE limits SET amount = 0").await > 0);
}

#[tokio::test]
async fn bots() {
    let test = TestDatabase::new().await;
    let insert = |columns: &str, values: &str| {
        format!("INSERT INTO bots (id, name, created_at, {columns}) VALUES (gen_random_uuid(), 'Bot', now(), {values})")
    };
    check(
        &test,
        &[
            (&insert("transport, telegram_id", "'telegram', 1"), "bots_check1"),
            (
                &insert("transport, telegram_id, token_cipher", "'telegram', 1, '\\x00'"),
                "bots_check1",
            ),
            (
                &insert("transport, token_cipher, token_key_id", "'telegram', '\\x00', 'k'"),
                "bots_check",
            ),
            (&insert("transport, telegram_id", "'browser', 1"), "bots_check"),
            (&insert("transport", "'pigeon'"), "bots_transport_check"),
        ],
    )
    .await;
    test.run(&insert(
        "transport, telegram_id, token_cipher, token_key_id",
        "'telegram', 1, '\\x00', 'k'",
    ))
    .await;
}

#[tokio::test]
async fn people_and_their_messages() {
    let test = TestDatabase::new().await;
    let now = test.now().await.unwrap();
    let anna = fixtures::meet(&mut test.acquire().await.unwrap(), 7, now).await;
    let message = |at: &str, conversation: &str| {
        format!(
            "INSERT INTO messages (id, created_at, conversation_id, author, text, tokens, in_context, job_id)
             VALUES (gen_random_uuid(), {at}, {conversation}, 'user', 'hi', 1, true, gen_random_uuid())"
        )
    };
    let here = format!("'{}'", anna.conversation);
    check(
        &test,
        &[
            ("UPDATE users SET blocked_at = now()", "users_check"),
            ("UPDATE users SET blocked_reason = 'spam'", "users_check"),
            (
                &format!(
                    "INSERT INTO users (id, transport, external_id, name, plan_id, created_at, last_seen_at)
                     VALUES (gen_random_uuid(), 'telegram', 7, 'Twin', {FREE}, now(), now())"
                ),
                "users_transport_external_id_key",
            ),
            ("DELETE FROM plans WHERE is_default", "users_plan_id_fkey"),
            (
                "INSERT INTO conversations (id, chat_id, user_id, started_at, last_at)
                 SELECT gen_random_uuid(), chat_id, user_id, now(), now() FROM conversations",
                "conversations_one_current",
            ),
            (&message("now()", "gen_random_uuid()"), "messages_conversation_id_fkey"),
            (
                &message("'2001-01-01'", &here),
                "no partition of relation \"messages\" found for row",
            ),
        ],
    )
    .await;
    test.run(&message("now()", &here)).await;
    test.run("UPDATE users SET blocked_at = now(), blocked_reason = 'spam'")
        .await;
}

#[tokio::test]
async fn what_is_used_is_never_less_than_nothing() {
    let test = TestDatabase::new().await;
    let now = test.now().await.unwrap();
    let anna = fixtures::meet(&mut test.acquire().await.unwrap(), 7, now).await;
    test.run(&format!(
        "INSERT INTO counters (user_id, measure, period, starts_at, used, reserved) VALUES ('{}', 'tokens', 'day', now(), 5, 5)",
        anna.user
    ))
    .await;
    let usage = |prompt: &str, cost: &str| {
        format!(
            "INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens,
                                cached_tokens, reported, cost, attempts, finish, total_ms, felt_ms)
             VALUES (gen_random_uuid(), now(), '{}', '{BOT}', '{}', 'p', 'm', {prompt}, 0, 0, true, {cost}, 1, 'stop', 1, 1)",
            anna.user, anna.conversation
        )
    };
    check(
        &test,
        &[
            ("UPDATE counters SET used = used - 6", "counters_used_check"),
            ("UPDATE counters SET reserved = reserved - 6", "counters_reserved_check"),
            ("UPDATE counters SET cap = -1", "counters_cap_check"),
            (&usage("-1", "0"), "usage_prompt_tokens_check"),
            (&usage("0", "-1"), "usage_cost_check"),
        ],
    )
    .await;
    test.run(&usage("0", "0")).await;
}

#[tokio::test]
async fn work_staff_and_trail() {
    let test = TestDatabase::new().await;
    let job = |state: &str, token: &str| {
        format!(
            "INSERT INTO jobs (id, kind, payload, state, lease_token) VALUES (gen_random_uuid(), 'update', '{{}}', {state}, {token})"
        )
    };
    let staff = |email: &str, role: &str| {
        format!(
            "INSERT INTO staff (id, email, name, role, password_hash, created_at) VALUES (gen_random_uuid(), {email}, 'A', {role}, '', now())"
        )
    };
    let trail = |hash: &str| {
        format!(
            "INSERT INTO audit (id, at, actor, action, target_kind, target_id, target_name, key_id, hash) VALUES (1, now(), '', '', '', '', '', '', {hash})"
        )
    };
    check(
        &test,
        &[
            (&job("'running'", "NULL"), "jobs_check"),
            (&job("'ready'", "gen_random_uuid()"), "jobs_check"),
            (&job("'asleep'", "NULL"), "jobs_state_check"),
            (&staff("'A@example.org'", "'owner'"), "staff_email_check"),
            (&staff("'a@example.org'", "'king'"), "staff_role_check"),
            (&trail("'\\x00'"), "audit_hash_check"),
            (
                "INSERT INTO audit_head (id, hash) VALUES (1, '\\x00')",
                "audit_head_pkey",
            ),
            (
                "INSERT INTO audit_head (one, id, hash) VALUES (false, 1, '\\x00')",
                "audit_head_one_check",
            ),
        ],
    )
    .await;
    test.run(&job("'running'", "gen_random_uuid()")).await;
    test.run(&staff("'a@example.org'", "'owner'")).await;
}
