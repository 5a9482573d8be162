//! Finding users, and what staff does with them.

use domain::{
    BlockReason, ConversationId, Permission, PlanId, UserId,
    views::{AuditRow, Blocked, Page, UserDetail, UserQuery, UserRow},
};
use repositories::{PgConnection, audit as audit_rows, ledger, messages, plans, users};
use serde_json::json;

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
    limits::bars,
};

const PAGE: i64 = 50;
const CONVERSATIONS: i64 = 20;

/// Users as staff sees them.
pub struct Users(pub(crate) Services);

impl Users {
    pub async fn list(&self, _actor: &Actor, query: UserQuery) -> Result<Page<UserRow>, Error> {
        let now = self.0.now();
        let filter = users::Filter {
            search: query.search.as_str(),
            status: query.status,
            plan: query.plan,
            after: crate::parse_cursor(query.after.as_deref())?.map(|(at, id)| (at, UserId(id))),
        };
        let mut db = self.0.db.acquire().await?;
        let mut rows = users::list(&mut db, &filter, now, PAGE + 1).await?;
        let more = cut(&mut rows, PAGE);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|row| crate::cursor(row.last_seen, row.id.0));
        Ok(Page { rows, next })
    }

    /// `older`: the `next` of the page of conversations before.
    pub async fn get(&self, actor: &Actor, id: UserId, older: Option<String>) -> Result<Option<UserDetail>, Error> {
        let before = crate::parse_cursor(older.as_deref())?.map(|(at, id)| (at, ConversationId(id)));
        let mut db = self.0.db.acquire().await?;
        let Some(user) = users::get(&mut db, id).await? else {
            return Ok(None);
        };
        let mut conversations = messages::conversations_of(&mut db, id, before, CONVERSATIONS + 1).await?;
        let more = cut(&mut conversations, CONVERSATIONS);
        let next = conversations
            .last()
            .filter(|_| more)
            .map(|row| crate::cursor(row.last, row.id.0));
        let staff_actions = self.staff_actions(&mut db, actor, id).await?;
        let shared = users::bots_of(&mut db, id).await?;
        Ok(Some(UserDetail {
            limits: bars(&self.0, &mut db, id, &shared, true).await?,
            conversations: Page {
                rows: conversations,
                next,
            },
            errors: ledger::failures_of(&mut db, id, 20).await?,
            staff_actions,
            id: user.id,
            name: user.name,
            username: user.username,
            telegram_id: user.telegram_id,
            language: user.language,
            plan_id: user.plan,
            plan: user.plan_name,
            blocked: user.blocked,
            created: user.created,
            last_seen: user.last_seen,
        }))
    }

    async fn staff_actions(&self, db: &mut PgConnection, actor: &Actor, id: UserId) -> Result<Vec<AuditRow>, Error> {
        if !actor.may(Permission::ReadAudit) {
            return Ok(Vec::new());
        }
        Ok(audit_rows::about_user(db, id, 20).await?)
    }

    pub async fn block(&self, actor: &Actor, id: UserId, reason: BlockReason) -> Result<(), Error> {
        let blocked = Blocked {
            at: self.0.now(),
            reason: reason.into(),
            by: actor.name.clone(),
        };
        self.set_blocked(actor, id, Some(blocked)).await
    }

    pub async fn unblock(&self, actor: &Actor, id: UserId) -> Result<(), Error> {
        self.set_blocked(actor, id, None).await
    }

    async fn set_blocked(&self, actor: &Actor, id: UserId, blocked: Option<Blocked>) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let user = users::lock(&mut tx, id).await?.ok_or(Error::NotFound("the user"))?;
        if user.blocked.is_some() == blocked.is_some() {
            return Err(Error::Conflict(if blocked.is_some() {
                "the user is blocked already"
            } else {
                "the user is not blocked"
            }));
        }
        users::set_blocked(&mut tx, id, blocked.as_ref()).await?;
        let action = if blocked.is_some() {
            "user.block"
        } else {
            "user.unblock"
        };
        let state = |blocked: &Option<Blocked>| json!({ "blocked": blocked.is_some(), "reason": blocked.as_ref().map(|blocked| &blocked.reason) });
        let target = Target {
            kind: "user",
            id: id.to_string(),
            name: &user.name,
        };
        record(
            &self.0,
            &mut tx,
            actor,
            action,
            target,
            Some(state(&user.blocked)),
            Some(state(&blocked)),
        )
        .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    pub async fn set_plan(&self, actor: &Actor, id: UserId, plan: PlanId) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let user = users::lock(&mut tx, id).await?.ok_or(Error::NotFound("the user"))?;
        let name = plans::name(&mut tx, plan).await?.ok_or(Error::NotFound("the plan"))?;
        if user.plan == plan {
            return Err(Error::Conflict("the user has this plan already"));
        }
        users::set_plan(&mut tx, id, plan).await?;
        let target = Target {
            kind: "user",
            id: id.to_string(),
            name: &user.name,
        };
        let (before, after) = (json!({ "plan": user.plan_name }), json!({ "plan": name }));
        record(&self.0, &mut tx, actor, "user.plan", target, Some(before), Some(after)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }
}

/// Takes the extra row by which a list knows that there is a next page.
pub(crate) fn cut<T>(rows: &mut Vec<T>, page: i64) -> bool {
    let page = usize::try_from(page).unwrap_or(usize::MAX);
    let more = rows.len() > page;
    rows.truncate(page);
    more
}
