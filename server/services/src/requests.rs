//! The log of calls to models, for staff.

use domain::views::{
    Page,
    requests::{RequestQuery, RequestRow},
};
use repositories::requests::{self as rows, Filter};
use uuid::Uuid;

use crate::{Actor, Error, Services};

const PAGE: i64 = 50;

/// Who asked which model, what came of it and what it cost.
pub struct Requests(pub(crate) Services);

impl Requests {
    pub async fn list(&self, _actor: &Actor, query: RequestQuery) -> Result<Page<RequestRow>, Error> {
        fn filled(text: &Option<String>) -> Option<&str> {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty())
        }
        let code = filled(&query.code).map(str::to_uppercase);
        let filter = Filter {
            outcome: query.outcome,
            code: code.as_deref(),
            model: filled(&query.model),
            bot: query.bot,
            user: query.user,
            key: query.key,
            conversation: query.conversation,
            after: crate::parse_cursor(query.after.as_deref())?,
        };
        let mut rows = rows::list(&mut *self.0.db.acquire().await?, &filter, PAGE + 1).await?;
        let more = crate::users::cut(&mut rows, PAGE);
        let next = rows.last().filter(|_| more).map(|row| crate::cursor(row.at, row.id));
        Ok(Page { rows, next })
    }

    /// One call, by the id of its job.
    pub async fn get(&self, _actor: &Actor, id: Uuid) -> Result<Option<RequestRow>, Error> {
        Ok(rows::get(&mut *self.0.db.acquire().await?, id).await?)
    }
}
