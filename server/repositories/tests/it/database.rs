//! A database of its own for every test: a copy of a template that is migrated once per server, however many processes ask.

use std::{
    hash::{DefaultHasher, Hasher},
    ops::Deref,
    path::Path,
};

use repositories::{Database, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

/// Connections of one test; tests run side by side and a server has about a hundred.
const CONNECTIONS: u32 = 20;
const MAKING_TEMPLATE: i64 = 4_711_001;

/// Gone, with everything in it, when dropped.
pub struct TestDatabase {
    db: Database,
    server: String,
    url: String,
    name: String,
}

impl Deref for TestDatabase {
    type Target = Database;
    fn deref(&self) -> &Database {
        &self.db
    }
}

impl TestDatabase {
    /// With the schema of today.
    pub async fn new() -> Self {
        Self::on(server_url()).await
    }

    /// On a server that has pgvector.
    pub async fn with_pgvector() -> Self {
        Self::on(pgvector_url()).await
    }

    /// Where each process compares questions, whatever the server has.
    pub async fn without_vectors() -> Self {
        let mut test = Self::new().await;
        test.run("DROP TABLE IF EXISTS similar_directions; DROP EXTENSION IF EXISTS vector")
            .await;
        test.db = Database::connect(&test.url, CONNECTIONS).await.unwrap();
        test
    }

    async fn on(server: String) -> Self {
        let template = template(&server).await;
        let test = Self::create(server, &format!(" TEMPLATE {template}")).await;
        // Nothing to do, unless the template is older than this month or not of this schema.
        test.db.migrate().await.unwrap();
        test
    }

    /// With nothing in it.
    pub async fn empty() -> Self {
        Self::create(server_url(), "").await
    }

    /// With nothing in it, on a server that has pgvector.
    pub async fn empty_with_pgvector() -> Self {
        Self::create(pgvector_url(), "").await
    }

    async fn create(server: String, how: &str) -> Self {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        execute(&mut connect(&server).await, &format!("CREATE DATABASE {name}{how}")).await;
        let url = url_of(&server, &name);
        let db = Database::connect(&url, CONNECTIONS).await.unwrap();
        Self { db, server, url, name }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs a statement and says how many rows it touched.
    pub async fn run(&self, sql: &str) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }

    /// The one value that a query answers.
    pub async fn one<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let value = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(self.pool())
            .await;
        value.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The values of a column.
    pub async fn column<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let values = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_all(self.pool())
            .await;
        values.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// How many rows of `what` (a table, with or without a condition) there are.
    pub async fn count(&self, what: &str) -> i64 {
        self.one(&format!("SELECT count(*) FROM {what}")).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A test's own runtime may be ending already.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                execute(
                    &mut connect(&server).await,
                    &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                )
                .await;
            });
        });
        let _ = dropped.join();
    }
}

fn server_url() -> String {
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL names a Postgres in which databases may be created; `bin/test db` sets it")
}

fn pgvector_url() -> String {
    std::env::var("PGVECTOR_DATABASE_URL").expect(
        "PGVECTOR_DATABASE_URL names a Postgres with pgvector in which databases may be created; `bin/test db` sets it",
    )
}

fn url_of(server: &str, database: &str) -> String {
    let (address, options) = server
        .split_once('?')
        .map_or((server, None), |(address, options)| (address, Some(options)));
    let host = address.rsplit_once('/').expect("a URL with a database").0;
    options.map_or_else(
        || format!("{host}/{database}"),
        |options| format!("{host}/{database}?{options}"),
    )
}

async fn connect(server: &str) -> PgConnection {
    PgConnection::connect(server)
        .await
        .unwrap_or_else(|error| panic!("Postgres does not answer at {server}: {error}"))
}

async fn execute(server: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(server)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The name of the template, made if it is not there. It counts as made when it is marked as one: whoever died on the way
/// leaves it unmarked.
async fn template(url: &str) -> String {
    let name = format!("botdeck_template_{:016x}", schema_hash());
    let mut server = connect(url).await;
    execute(&mut server, &format!("SELECT pg_advisory_lock({MAKING_TEMPLATE})")).await;
    let made: Option<bool> = sqlx::query_scalar("SELECT datistemplate FROM pg_database WHERE datname = $1")
        .bind(&name)
        .fetch_optional(&mut server)
        .await
        .unwrap();
    if made != Some(true) {
        execute(&mut server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        execute(&mut server, &format!("CREATE DATABASE {name}")).await;
        let db = Database::connect(&url_of(url, &name), 1).await.unwrap();
        db.migrate().await.unwrap();
        db.close().await;
        execute(
            &mut server,
            &format!("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false"),
        )
        .await;
    }
    // The lock goes with the connection.
    server.close().await.unwrap();
    name
}

fn schema_hash() -> u64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "sql"))
    {
        hasher.write(&std::fs::read(file).unwrap());
    }
    hasher.finish()
}
