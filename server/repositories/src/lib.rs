//! The only SQL. One file per aggregate; plain functions over a connection, so that a service opens the transaction and
//! several of them share it. Every statement is checked against the schema at compile time (`bin/lib/sqlx-prepare.sh` after a
//! change). Not found is `Ok(None)`. No rules live here: what may happen is decided in `services`, or said by a constraint.

pub mod api_calls;
pub mod api_keys;
pub mod audit;
pub mod bot_pages;
pub mod bots;
pub mod browser;
pub mod catalogue;
pub mod counters;
pub mod deliveries;
pub mod directions;
pub mod job_pages;
pub mod jobs;
pub mod ledger;
pub mod limit_reach;
pub mod limits;
pub mod messages;
pub mod people;
pub mod plans;
mod refused_rows;
pub mod requests;
pub mod rollups;
pub mod sessions;
pub mod similar;
pub mod staff;
pub mod updates;
pub mod users;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::ComparedBy;
use sqlx::{
    ConnectOptions, Connection, Executor,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
pub use sqlx::{PgConnection, PgPool};

/// What the database said, or that it was not reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    #[error("migrations: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("a stored value is not readable: {0}")]
    Stored(&'static str),
}

impl Error {
    /// A unique constraint said no: the thing exists already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// The server is away, stops or starts (<https://www.postgresql.org/docs/current/errcodes-appendix.html>, classes 08 and 57P), or
    /// somebody held a lock, or we a transaction, for too long (55P03, 25P03): soon the same may succeed. Whether a commit that ended
    /// so took place is unknown.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_)) => true,
            Self::Sql(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                code.starts_with("08") || code.starts_with("57P") || matches!(&*code, "55P03" | "25P03")
            }),
            _ => false,
        }
    }

    /// An outage that another has met who asked for us as well.
    pub fn outage() -> Self {
        Self::Sql(sqlx::Error::PoolTimedOut)
    }

    /// Somebody else held a lock for too long.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03"))
    }

    /// The same would be answered again: a value that cannot be read, written or kept (class 22, and constraints but the unique ones,
    /// which depend on what others do).
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Stored(_) => true,
            Self::Sql(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_)) => true,
            Self::Sql(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| code.starts_with("22") || matches!(&*code, "23502" | "23514")),
            _ => false,
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// An open transaction; rolled back when dropped.
pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// A worker that is frozen in the middle of a transaction holds its locks no longer than this: those who are to replace it need
/// them. Both are shorter than a job's lease.
const LONGEST_IDLE_TRANSACTION: &str = "5s";
const LONGEST_WAIT_FOR_A_LOCK: &str = "4s";
/// A client whose machine has gone away is noticed in half a minute instead of two hours.
const KEEPALIVE: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "4"),
];

const MIGRATION_ASKED_FOR_EVERY: Duration = Duration::from_millis(100);
/// Whoever dies while an index is built concurrently leaves one behind that nobody uses, and its migration would take it for built.
const DROP_INTERRUPTED_INDEXES: &str = "DO $$
    DECLARE
        broken regclass;
    BEGIN
        FOR broken IN
            SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace
                AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
        LOOP
            EXECUTE format('DROP INDEX %s', broken);
        END LOOP;
    END $$";

/// How long a connection may lie idle and be used without a question.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Changes of limits as they are made; each holds a connection.
pub struct LimitChanges(PgListener);

impl LimitChanges {
    /// Waits for the next. One may have been missed when the line to the server was cut, so that counts as one, too.
    pub async fn next(&mut self) -> Result<()> {
        self.0.try_recv().await?;
        Ok(())
    }
}

/// The door to Postgres.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    /// Asked when we connect and when we migrate, and believed from then on.
    has_directions: Arc<AtomicBool>,
}

impl Database {
    /// Whether `url` can be read at all; nothing is asked.
    pub fn takes_url(url: &str) -> bool {
        url.parse::<PgConnectOptions>().is_ok()
    }

    /// Connects lazily tested: fails within five seconds when nothing answers at `url`.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self> {
        let options = url
            .parse::<PgConnectOptions>()?
            .options([
                ("idle_in_transaction_session_timeout", LONGEST_IDLE_TRANSACTION),
                ("lock_timeout", LONGEST_WAIT_FOR_A_LOCK),
            ])
            .options(KEEPALIVE);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(5))
            // A ping before each use would double the round trips. One that lay idle is pinged: when the server was away meanwhile, it
            // is broken, and whoever got it would be told of an outage that is over.
            .test_before_acquire(false)
            .before_acquire(|connection, seen| {
                Box::pin(async move { Ok(seen.idle_for < TRUSTED_FOR || connection.ping().await.is_ok()) })
            })
            .connect_with(options.application_name("botdeck"))
            .await?;
        let has_directions = directions::are_kept(&mut *pool.acquire().await?).await?;
        Ok(Self {
            pool,
            has_directions: Arc::new(has_directions.into()),
        })
    }

    /// Brings the schema up to date: replicas that start together wait for each other, however long it takes. The answer says why
    /// pgvector is not used that the server has, if so.
    pub async fn migrate(&self) -> Result<Option<String>> {
        let patient = PgConnectOptions::clone(&self.pool.connect_options())
            .options([("idle_in_transaction_session_timeout", "0"), ("lock_timeout", "0")]);
        let mut connection = patient.connect().await?;
        // Asked for again and again, where sqlx would wait inside of a statement: an index that is built beside those who write waits
        // for all statements that have begun before, and both would wait for ever. It goes with the connection.
        while !sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock(7305417332) AS "ours!""#)
            .fetch_one(&mut connection)
            .await?
        {
            tokio::time::sleep(MIGRATION_ASKED_FOR_EVERY).await;
        }
        connection.execute(DROP_INTERRUPTED_INDEXES).await?;
        let mut migrator = sqlx::migrate!("../../migrations");
        migrator.set_locking(false);
        // Those of a newer release are there while its replicas take over one by one, and when it is taken back.
        migrator.set_ignore_missing(true);
        migrator.run(&mut connection).await?;
        let unused = directions::prepare(&mut connection).await?;
        self.has_directions
            .store(directions::are_kept(&mut connection).await?, Ordering::Relaxed);
        connection.close().await?;
        self.ensure_partitions().await?;
        Ok(unused)
    }

    /// Who compares questions with others: the database where it can.
    pub fn compared_by(&self) -> ComparedBy {
        if self.has_directions.load(Ordering::Relaxed) {
            ComparedBy::Database
        } else {
            ComparedBy::Process
        }
    }

    /// Makes the partitions of the coming months.
    pub async fn ensure_partitions(&self) -> Result<()> {
        // Two replicas making the same table at once would collide in the catalogue.
        let mut tx = self.begin().await?;
        tx.execute("SELECT pg_advisory_xact_lock(7305417331)").await?;
        tx.execute("SELECT ensure_message_partitions((now() AT TIME ZONE 'UTC')::date)")
            .await?;
        // The month before as well: a line may be written by a clock that is a little behind.
        tx.execute(
            "SELECT ensure_usage_partitions((now() AT TIME ZONE 'UTC')::date - 31, (now() AT TIME ZONE 'UTC')::date)",
        )
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Drops the months of the ledger that ended before the last `months` began, as far as they are summed up; how many they were. It
    /// needs the ledger for a moment to itself, and lets others go first.
    pub async fn drop_old_usage(&self, now: chrono::DateTime<chrono::Utc>, months: u32) -> Result<i32> {
        let first = now.date_naive() - chrono::Months::new(months);
        let mut tx = self.begin().await?;
        tx.execute("SELECT pg_advisory_xact_lock(7305417331), set_config('lock_timeout', '2s', true)")
            .await?;
        let dropped = sqlx::query_scalar!(r#"SELECT drop_usage_partitions($1) AS "dropped!""#, first)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(dropped)
    }

    /// Opens a transaction, in a task of its own: callers go away in the middle (a browser or Telegram closes its connection),
    /// and sqlx 0.9 gives a connection whose BEGIN is under way back as if it were in none. Whatever others did on it
    /// afterwards without a transaction would never be committed.
    pub async fn begin(&self) -> Result<Transaction> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin().await });
        Ok(begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?)
    }

    /// One whose commit does not wait for the disk: for what can be made up for when a crash of the server takes it back.
    pub async fn begin_unsynced(&self) -> Result<Transaction> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with("BEGIN; SET LOCAL synchronous_commit = off").await });
        Ok(begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?)
    }

    /// Hears of every change of limits that is committed from here on, in whatever process. On a connection beside those of the pool,
    /// which may be few.
    pub async fn limit_changes(&self) -> Result<LimitChanges> {
        let options = PgConnectOptions::clone(&self.pool.connect_options());
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(limits::CHANGED).await?;
        Ok(LimitChanges(listener))
    }

    pub async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>> {
        Ok(self.pool.acquire().await?)
    }

    /// Round trip to the server, for readiness and `doctor`; the answer is the server's version.
    pub async fn ping(&self) -> Result<String> {
        let mut connection = self.acquire().await?;
        Ok(
            sqlx::query_scalar!(r#"SELECT current_setting('server_version') AS "version!""#)
                .fetch_one(&mut *connection)
                .await?,
        )
    }

    /// The server's clock, for comparing with ours.
    pub async fn now(&self) -> Result<chrono::DateTime<chrono::Utc>> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#)
            .fetch_one(&mut *connection)
            .await?)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// For tests that look at the tables themselves.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// Escapes the wildcards of LIKE, so that what a person typed is searched for as it stands.
fn like(text: &str) -> String {
    text.to_lowercase()
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}

/// Postgres keeps no NUL in a text; Telegram and models may send one.
fn storable(text: &str) -> String {
    text.replace('\0', "")
}

/// The same for a text with marks; the marks stay where they are counted, so a NUL becomes a space.
fn storable_rich(body: &domain::views::RichText) -> domain::views::RichText {
    domain::views::RichText {
        text: body.text.replace('\0', " "),
        entities: body.entities.clone(),
    }
}
