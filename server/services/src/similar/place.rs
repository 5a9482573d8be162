//! Where the questions of a space are compared: in the database if it has pgvector, else in this process. Both say the same.

use chrono::{DateTime, Utc};
use domain::{ComparedBy, Likeness};
use gateway::CacheKey;
use repositories::directions;
use uuid::Uuid;

use super::space::Space;
use crate::{Error, Services};

pub(super) enum Place {
    Database(CacheKey),
    Process(Space),
}

impl Place {
    /// That of a space.
    pub(super) async fn of(services: &Services, space: CacheKey) -> Result<Self, Error> {
        Ok(match services.db.compared_by() {
            ComparedBy::Database => Self::Database(space),
            ComparedBy::Process => Self::Process(services.similar.fresh(services, space).await?),
        })
    }

    /// The answer whose question points most nearly the same way, of several such the newest.
    pub(super) async fn nearest(
        &self,
        services: &Services,
        vector: &[f32],
        now: DateTime<Utc>,
    ) -> Result<Option<(Uuid, Likeness)>, Error> {
        match self {
            Self::Database(space) => {
                let mut db = services.db.acquire().await?;
                Ok(directions::nearest(&mut db, space, vector, now).await?)
            }
            Self::Process(space) => Ok(space.nearest(vector.to_vec(), now).await),
        }
    }
}
