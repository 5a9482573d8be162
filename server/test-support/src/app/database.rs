//! One fresh database for each test.

use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};

use super::OrFail;

/// A database of its own; dropped with the test.
pub struct TestDatabase {
    name: String,
    server: PgConnectOptions,
    pub url: String,
    pub pool: PgPool,
}

impl TestDatabase {
    /// Made on the server of `DATABASE_URL`, which must let us make databases.
    pub async fn create() -> Self {
        let Ok(given) = std::env::var("DATABASE_URL") else {
            panic!("DATABASE_URL is not set: `bin/test bot` starts a Postgres and sets it");
        };
        Self::create_on(&given).await
    }

    /// Made on the server of this URL.
    pub async fn create_on(given: &str) -> Self {
        let server: PgConnectOptions = given.parse().or_fail("DATABASE_URL is not readable");
        let name = format!("botdeck_it_{:016x}", rand::random::<u64>());
        let mut admin = connect(&server).await;
        let made = sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await;
        made.or_fail("no database could be made");
        let mut url = reqwest::Url::parse(given).or_fail("DATABASE_URL is not readable");
        url.set_path(&name);
        let pool = PgPoolOptions::new()
            .max_connections(3)
            .acquire_timeout(Duration::from_secs(20))
            .connect_lazy_with(server.clone().database(&name).disable_statement_logging());
        Self {
            name,
            server,
            url: url.into(),
            pool,
        }
    }

    /// The rows of a query as JSON objects.
    pub async fn rows(&self, query: &str) -> Vec<Value> {
        let wrapped = format!("SELECT to_jsonb(t) FROM ({query}) t");
        let rows = sqlx::query_scalar(AssertSqlSafe(wrapped)).fetch_all(&self.pool).await;
        rows.or_fail(query)
    }

    /// A statement; returns how many rows it changed.
    pub async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
            .execute(&self.pool)
            .await;
        done.or_fail(statement).rows_affected()
    }

    /// Everything that is stored, as text, one row a line: what a dump would hold.
    pub async fn dump(&self) -> String {
        let tables = self
            .rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            .await;
        let mut text = String::new();
        for table in tables {
            let table = table["name"].as_str().unwrap_or_default();
            for row in self.rows(&format!("SELECT t::text AS row FROM {table} t")).await {
                text.push_str(&format!("{table}: {}\n", row["row"].as_str().unwrap_or_default()));
            }
        }
        text
    }

    /// Cuts every connection and lets nobody in, as an outage would.
    pub async fn take_away(&self) {
        self.admin(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name))
            .await;
        let cut = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        );
        self.admin(&cut).await;
    }

    /// The end of the outage.
    pub async fn give_back(&self) {
        self.admin(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name))
            .await;
    }

    async fn admin(&self, statement: &str) {
        let mut admin = connect(&self.server).await;
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut admin)
            .await;
        done.or_fail(statement);
    }
}

async fn connect(server: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(server)
        .await
        .or_fail("the Postgres of DATABASE_URL is not reached")
}

impl Drop for TestDatabase {
    /// On a thread of its own, since dropping cannot wait for the test's runtime.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                if let Ok(mut admin) = PgConnection::connect_with(&server).await {
                    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    let _ = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await;
                }
            });
        });
        let _ = dropped.join();
    }
}
