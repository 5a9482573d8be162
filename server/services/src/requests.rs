//! The log of calls to models, for staff.

use domain::{
    Moment, TraceId,
    views::{
        Page,
        requests::{RequestQuery, RequestRow},
    },
};
use futures::{Stream, stream};
use repositories::requests::{self as rows, Filter};
use serde_json::json;
use uuid::Uuid;

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
};

const PAGE: i64 = 50;
/// Rows of an export that are in memory at once.
const BATCH: i64 = 500;

/// Who asked which model, what came of it and what it cost.
pub struct Requests(pub(crate) Services);

impl Requests {
    pub async fn list(&self, _actor: &Actor, query: RequestQuery) -> Result<Page<RequestRow>, Error> {
        let filter = self.filter(&query)?;
        let mut rows = rows::list(&mut *self.0.db.acquire().await?, &filter, PAGE + 1).await?;
        let more = crate::users::cut(&mut rows, PAGE);
        let next = rows.last().filter(|_| more).map(|row| crate::cursor(row.at, row.id));
        Ok(Page { rows, next })
    }

    /// All that the query finds, from its first page on, a batch at a time: however much it is, little of it is in memory, and whoever
    /// reads slowly keeps no connection to the database. That it was taken is recorded before the first batch is read; `columns` are
    /// noted there.
    pub async fn export(
        &self,
        actor: &Actor,
        query: RequestQuery,
        columns: &[&str],
    ) -> Result<impl Stream<Item = Result<Vec<RequestRow>, Error>> + Send + 'static, Error> {
        let query = RequestQuery { after: None, ..query };
        let filter = self.filter(&query)?;
        let target = Target {
            kind: "requests",
            id: "csv".to_owned(),
            name: "CSV",
        };
        let taken = json!({
            "outcome": query.outcome,
            "code": query.code,
            "model": query.model,
            "bot": query.bot,
            "user": query.user,
            "key": query.key,
            "conversation": query.conversation,
            "from": filter.from,
            "to": filter.until,
            "columns": columns,
        });
        let mut tx = self.0.db.begin().await?;
        record(&self.0, &mut tx, actor, "requests.export", target, None, Some(taken)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(stream::try_unfold(Some((self.0.clone(), filter)), |rest| async move {
            let Some((services, mut filter)) = rest else {
                return Ok(None);
            };
            let batch = rows::list(&mut *services.db.acquire().await?, &filter, BATCH).await?;
            let is_last = i64::try_from(batch.len()).is_ok_and(|count| count < BATCH);
            filter.after = batch.last().map(|row| (row.at, row.id));
            Ok(Some((batch, (!is_last).then_some((services, filter)))))
        }))
    }

    /// One call, by the id of its job.
    pub async fn get(&self, _actor: &Actor, id: Uuid) -> Result<Option<RequestRow>, Error> {
        Ok(rows::get(&mut *self.0.db.acquire().await?, id).await?)
    }

    fn filter(&self, query: &RequestQuery) -> Result<Filter, Error> {
        fn filled(text: &Option<String>) -> Option<&str> {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty())
        }
        let moment = |text| filled(text).map(|text| text.parse::<Moment>()).transpose();
        let (from, until) = (moment(&query.from)?, moment(&query.to)?);
        if let (Some(from), Some(until)) = (from, until)
            && from >= until
        {
            return Err(Error::Invalid("an end that comes after its beginning"));
        }
        let past = if from.is_none() && until.is_none() {
            query.past.since(self.0.now())
        } else {
            None
        };
        // No error code looks like an id.
        let id = filled(&query.code).and_then(|text| text.parse::<TraceId>().ok());
        Ok(Filter {
            outcome: query.outcome,
            code: filled(&query.code).filter(|_| id.is_none()).map(str::to_uppercase),
            id: id.map(TraceId::as_uuid),
            model: filled(&query.model).map(str::to_owned),
            bot: query.bot,
            user: query.user,
            key: query.key,
            conversation: query.conversation,
            from: from.map(|from| from.0).or(past),
            until: until.map(|until| until.0),
            after: crate::parse_cursor(query.after.as_deref())?,
        })
    }
}
