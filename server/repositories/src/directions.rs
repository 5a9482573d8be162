//! The vectors of answers as pgvector knows them, where the database has it: so it finds the nearest one, and each replica sees at
//! once what another has written.
//!
//! Their table is made beside the migrations, since not every database can have it. It lies apart from the answers, which are whole
//! without it: a dump may be restored where there is no pgvector, and questions are compared in process from then on. Answers that
//! were there before it are not found by it; they end in their time. Statements with a vector in them are not checked at compile
//! time, for the same reason.

use chrono::{DateTime, Utc};
use domain::Likeness;
use sqlx::{Executor, PgConnection};
use uuid::Uuid;

use crate::{Error, Result, similar::NewAnswer};

/// From 0.5 on pgvector adds with all the processor has, and its vectors are as long as any model's.
const LEAST_VERSION: (u32, u32) = (0, 5);
/// More it does not take; no model makes as many.
const MOST_DIMENSIONS: i32 = 16_000;

const MAKE: &str = "DO $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') THEN
            CREATE EXTENSION vector;
        END IF;
        PERFORM lock_gently('similar_answers IN SHARE ROW EXCLUSIVE MODE');
        -- Left without its vectors where somebody has dropped the extension.
        IF to_regclass('similar_directions') IS NOT NULL THEN
            DROP TABLE similar_directions;
        END IF;
        CREATE TABLE similar_directions (
            id         uuid PRIMARY KEY REFERENCES similar_answers ON DELETE CASCADE,
            space      bytea NOT NULL,
            dimensions integer NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            -- Of as many dimensions as the model of the space makes.
            direction  vector NOT NULL
        );
        -- A space holds at most some thousands: all of them are compared, and the nearest is never missed.
        CREATE INDEX similar_directions_by_space ON similar_directions (space, dimensions);
    END $$";

/// Whether the table is there, and the server still has what reads it. A server that cannot say so is no reason not to start.
pub(crate) async fn are_kept(db: &mut PgConnection) -> Result<bool> {
    let kept = sqlx::query_scalar!(
        r#"SELECT EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('similar_directions') AND attname = 'direction' AND NOT attisdropped)
            AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector' AND installed_version IS NOT NULL) AS "kept!""#
    )
    .fetch_one(db)
    .await;
    match kept {
        Err(sqlx::Error::Database(_)) => Ok(false),
        kept => Ok(kept?),
    }
}

/// Makes the table where pgvector is there. The answer says why it was not made all the same, which is no reason not to start either.
pub(crate) async fn prepare(db: &mut PgConnection) -> Result<Option<String>> {
    match make(db).await {
        Err(Error::Sql(sqlx::Error::Database(error))) => Ok(Some(error.message().to_owned())),
        made => made,
    }
}

async fn make(db: &mut PgConnection) -> Result<Option<String>> {
    if are_kept(db).await? {
        return Ok(None);
    }
    let version = sqlx::query_scalar!(
        r#"SELECT coalesce(installed_version, default_version) AS "version!" FROM pg_available_extensions WHERE name = 'vector'"#
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(version) = version else {
        return Ok(None);
    };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < LEAST_VERSION {
        let (major, minor) = LEAST_VERSION;
        return Ok(Some(format!("version {version} is older than {major}.{minor}")));
    }
    db.execute(MAKE).await?;
    Ok(None)
}

/// Beside the row of the answer, in its transaction.
pub(crate) async fn insert(db: &mut PgConnection, id: Uuid, answer: &NewAnswer<'_>) -> Result<()> {
    let dimensions = dimensions(answer.vector);
    if dimensions > MOST_DIMENSIONS {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO similar_directions (id, space, dimensions, created_at, expires_at, direction) VALUES ($1, $2, $3, $4, $5, $6::real[]::vector)",
    )
    .bind(id)
    .bind(answer.space)
    .bind(dimensions)
    .bind(answer.at)
    .bind(answer.expires_at)
    .bind(answer.vector)
    .execute(db)
    .await?;
    Ok(())
}

/// The answer of a space that still holds and whose vector, of as many dimensions, points most nearly the same way; of several such
/// the newest.
pub async fn nearest(
    db: &mut PgConnection,
    space: &[u8; 32],
    vector: &[f32],
    now: DateTime<Utc>,
) -> Result<Option<(Uuid, Likeness)>> {
    // Materialized, so that a distance is reckoned once; the parameter is made a vector once.
    let row: Option<(Uuid, f32)> = sqlx::query_as(
        "WITH near AS MATERIALIZED (
             SELECT id, created_at, direction <=> (SELECT $3::real[]::vector) AS distance FROM similar_directions
             WHERE space = $1 AND dimensions = $2 AND expires_at > $4)
         SELECT id, (1 - distance)::real FROM near ORDER BY distance, created_at DESC LIMIT 1",
    )
    .bind(space)
    .bind(dimensions(vector))
    .bind(vector)
    .bind(now)
    .fetch_optional(db)
    .await?;
    Ok(row.map(|(id, cosine)| (id, Likeness::of_cosine(cosine))))
}

fn dimensions(vector: &[f32]) -> i32 {
    i32::try_from(vector.len()).unwrap_or(i32::MAX)
}
