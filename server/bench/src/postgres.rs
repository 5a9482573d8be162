//! A fresh database for each run, and what the server has done in it. Plain SQL, since nothing of it is the product's.

use std::str::FromStr;

use anyhow::Context;
use serde::Serialize;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row, postgres::PgConnectOptions, types::Uuid};

use crate::process;

const DATABASE: &str = "botdeck_bench";

/// The server of `DATABASE_URL`.
pub struct Server {
    options: PgConnectOptions,
    postmaster: Option<u32>,
    /// Whether commits wait for the disk, and the version.
    pub durable: bool,
    pub version: String,
}

/// Calls of other programs, as they were written.
pub struct Written {
    pub calls: i64,
    pub tokens: i64,
    pub last: Uuid,
    /// Tokens of all calls ever that were counted on the limits of a key; 0 without limits.
    pub counted: i64,
    /// Nothing is set aside any more.
    pub settled: bool,
}

/// What one run has done in its database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Work {
    /// Everything sent, BEGIN and COMMIT included; `None` without pg_stat_statements.
    pub statements: Option<f64>,
    /// Transactions that wrote, each of which waits for the disk.
    pub write_transactions: f64,
    pub wal_bytes: f64,
    /// Of all processes of the server.
    pub cpu_seconds: Option<f64>,
}

/// One statement's share, per answered message.
#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    pub calls: f64,
    pub milliseconds: f64,
    pub text: String,
}

impl Server {
    pub async fn find() -> anyhow::Result<Self> {
        let url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set")?;
        let options = PgConnectOptions::from_str(&url)?;
        let mut db = options.connect().await.context("DATABASE_URL is not reached")?;
        let row = db
            .fetch_one(
                "SELECT pg_backend_pid() AS pid, current_setting('server_version') AS version,
                        current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off' AS durable",
            )
            .await?;
        let backend = u32::try_from(row.try_get::<i32, _>("pid")?)?;
        Ok(Self {
            options,
            // Found only when the server runs on this machine.
            postmaster: process::parent_of(backend).filter(|pid| *pid > 1),
            durable: row.try_get("durable")?,
            version: row.try_get("version")?,
        })
    }

    /// An empty database; the one of the run before is dropped.
    pub async fn fresh(&self) -> anyhow::Result<Database> {
        self.fresh_as(DATABASE).await
    }

    /// The same by another name, for a second one at the same time.
    pub async fn fresh_as(&self, name: &str) -> anyhow::Result<Database> {
        let mut db = self.options.connect().await?;
        for statement in [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name}"),
        ] {
            // Names of databases are no parameters; these are ours.
            db.execute(sqlx::AssertSqlSafe(statement)).await?;
        }
        db.close().await?;
        let options = self.options.clone().database(name);
        let mut db = options.connect().await?;
        let counts_statements = db.execute("CREATE EXTENSION pg_stat_statements").await.is_ok()
            && db.execute("SELECT FROM pg_stat_statements LIMIT 1").await.is_ok();
        Ok(Database {
            postmaster: self.postmaster,
            db,
            url: options.to_url_lossy().to_string(),
            counts_statements,
        })
    }
}

pub struct Database {
    postmaster: Option<u32>,
    db: PgConnection,
    pub url: String,
    counts_statements: bool,
}

impl Database {
    /// A key that opens chat completions, by its id.
    pub async fn add_api_key(&mut self, secret: &str) -> anyhow::Result<String> {
        let row = sqlx::query(
            "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by)
             VALUES (gen_random_uuid(), 'bench', left($1, 9), $2, '{chat}', now(), 'bench') RETURNING id::text",
        )
        .bind(secret)
        .bind(&blake3::hash(secret.as_bytes()).as_bytes()[..])
        .fetch_one(&mut self.db)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// What the ledger has after the call `after`.
    pub async fn ledger(&mut self, after: Uuid) -> anyhow::Result<Written> {
        let row = sqlx::query(
            "SELECT count(*) AS calls, coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint AS tokens,
                    (SELECT job_id FROM usage ORDER BY job_id DESC LIMIT 1) AS last,
                    (SELECT coalesce(sum(used), 0)::bigint FROM scope_counters WHERE scope = 'api_key' AND measure = 'tokens') AS counted,
                    NOT EXISTS (SELECT FROM holds) AND NOT EXISTS (SELECT FROM scope_counters WHERE reserved <> 0) AS settled
             FROM usage WHERE job_id > $1",
        )
        .bind(after)
        .fetch_one(&mut self.db)
        .await?;
        Ok(Written {
            calls: row.try_get("calls")?,
            tokens: row.try_get("tokens")?,
            last: row.try_get::<Option<Uuid>, _>("last")?.unwrap_or(after),
            counted: row.try_get("counted")?,
            settled: row.try_get("settled")?,
        })
    }

    /// So many messages of fifty who write in the runs and of many who do not, half of them answers, over the last 30 days, with their updates and ledger. A hundred
    /// to a person, as many as a busy month brings.
    pub async fn fill(&mut self, messages: usize) -> anyhow::Result<()> {
        if messages == 0 {
            return Ok(());
        }
        let people = (messages / 100).max(1);
        self.db
            .execute("SELECT ensure_message_partitions((now() - interval '31 days')::date)")
            .await?;
        let statements = [
            "CREATE TEMP TABLE old AS SELECT n, gen_random_uuid() AS user_id, gen_random_uuid() AS chat_id,
                 gen_random_uuid() AS conversation_id,
                 CASE WHEN n <= 50 THEN 1000 + n ELSE 500000000 + n END AS external_id, (SELECT id FROM bots WHERE transport = 'telegram') AS bot_id
             FROM generate_series(1, $1::bigint) AS n",
            "INSERT INTO users (id, transport, external_id, name, plan_id, created_at, last_seen_at)
             SELECT user_id, 'telegram', external_id, 'Old ' || n, (SELECT id FROM plans WHERE is_default),
                 now() - interval '30 days', now() - interval '1 hour' FROM old WHERE n <= $1",
            "INSERT INTO chats (id, bot_id, external_id, kind, title, created_at)
             SELECT chat_id, bot_id, external_id, 'private', 'Old ' || n, now() - interval '30 days' FROM old WHERE n <= $1",
            "INSERT INTO conversations (id, chat_id, user_id, started_at, last_at)
             SELECT conversation_id, chat_id, user_id, now() - interval '30 days', now() - interval '1 hour' FROM old WHERE n <= $1",
            "CREATE TEMP TABLE said AS SELECT o.*, k, gen_random_uuid() AS job_id,
                 now() - interval '30 days' + (k + random()) * interval '14 hours' AS at
             FROM old o, generate_series(0, 49) AS k WHERE n <= $1",
            "INSERT INTO updates (id, bot_id, update_id, kind, message_id, payload, received_at)
             SELECT job_id, bot_id, n * 50 + k, 'message', n * 100 + k * 2 + 1, jsonb_build_object('update_id', n * 50 + k, 'message',
                 jsonb_build_object('message_id', n * 100 + k * 2 + 1, 'text', repeat('what people write ', 8))), at
             FROM said WHERE n <= $1",
            "INSERT INTO messages (id, created_at, conversation_id, author, text, tokens, in_context, job_id)
             SELECT gen_random_uuid(), at + part * interval '3 seconds', conversation_id,
                 CASE part WHEN 0 THEN 'user' ELSE 'bot' END, repeat('what people write ', 8), 30, true, job_id
             FROM said, generate_series(0, 1) AS part WHERE n <= $1",
            "INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens,
                 cached_tokens, reported, cost, attempts, finish, total_ms, felt_ms)
             SELECT job_id, at, user_id, bot_id, conversation_id, 'openai', 'fake-model', 300, 30, 0, true, 100000, 1, 'stop', 900, 1000
             FROM said WHERE n <= $1",
        ];
        for statement in statements {
            // A CREATE TABLE AS takes no parameters.
            let statement = statement.replace("$1", &people.to_string());
            self.db.execute(sqlx::AssertSqlSafe(statement)).await?;
        }
        self.db.execute("DROP TABLE old, said").await?;
        self.db.execute("VACUUM ANALYZE").await?;
        Ok(())
    }

    /// Everything done so far, by whoever.
    pub async fn work(&mut self) -> anyhow::Result<Work> {
        let row = self
            .db
            .fetch_one(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::float8 AS xids,
                        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS wal",
            )
            .await?;
        let statements = if self.counts_statements {
            let sum = "SELECT coalesce(sum(calls), 0)::float8 AS calls FROM pg_stat_statements
                       WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
            Some(self.db.fetch_one(sum).await?.try_get("calls")?)
        } else {
            None
        };
        Ok(Work {
            statements,
            write_transactions: row.try_get("xids")?,
            wal_bytes: row.try_get("wal")?,
            cpu_seconds: self.postmaster.and_then(process::cpu_seconds_of_family),
        })
    }

    /// Forgets the statements counted so far.
    pub async fn forget(&mut self) -> anyhow::Result<()> {
        if self.counts_statements {
            self.db.execute("SELECT pg_stat_statements_reset()").await?;
        }
        Ok(())
    }

    /// The statements that were called most, with their shares in `messages`.
    pub async fn statements(&mut self, messages: f64) -> anyhow::Result<Vec<Statement>> {
        if !self.counts_statements {
            return Ok(Vec::new());
        }
        let all =
            "SELECT calls::float8 AS calls, total_exec_time + total_plan_time AS ms, query FROM pg_stat_statements
                   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                   ORDER BY 2 DESC LIMIT 40";
        let rows = self.db.fetch_all(all).await?;
        rows.into_iter()
            .map(|row| {
                let query: String = row.try_get("query")?;
                Ok(Statement {
                    calls: row.try_get::<f64, _>("calls")? / messages,
                    milliseconds: row.try_get::<f64, _>("ms")? / messages,
                    text: query.split_whitespace().collect::<Vec<_>>().join(" "),
                })
            })
            .collect()
    }
}

impl Work {
    /// What was done between two looks, a message.
    pub fn since(&self, before: &Self, messages: f64) -> Self {
        let share = |now: f64, then: f64| (now - then) / messages;
        let pair = |now: Option<f64>, then: Option<f64>| Some(share(now?, then?));
        Self {
            statements: pair(self.statements, before.statements),
            write_transactions: share(self.write_transactions, before.write_transactions),
            wal_bytes: share(self.wal_bytes, before.wal_bytes),
            cpu_seconds: pair(self.cpu_seconds, before.cpu_seconds),
        }
    }
}
