//! Plans and their limits.

use domain::{
    LimitKind, PlanId, PlanName,
    views::{PlanView, limits::LimitChanges},
};
use repositories::plans;
use serde_json::{Value, json};

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
    limits::{Current, LimitSetting, recorded},
};

/// What people may use.
pub struct Plans(pub(crate) Services);

impl Plans {
    pub async fn list(&self, _actor: &Actor) -> Result<Vec<PlanView>, Error> {
        Ok(plans::list(&mut *self.0.db.acquire().await?).await?)
    }

    /// Without regard to case.
    pub async fn by_name(&self, name: &str) -> Result<Option<PlanId>, Error> {
        Ok(plans::by_name(&mut *self.0.db.acquire().await?, name).await?)
    }

    pub async fn create(&self, actor: &Actor, name: PlanName) -> Result<PlanId, Error> {
        let id = PlanId(uuid::Uuid::now_v7());
        let mut tx = self.0.db.begin().await?;
        plans::insert(&mut tx, id, &name, self.0.now()).await.map_err(|error| {
            if error.is_duplicate() {
                Error::Conflict("there is a plan of this name already")
            } else {
                error.into()
            }
        })?;
        let target = Target {
            kind: "plan",
            id: id.to_string(),
            name: name.as_str(),
        };
        record(
            &self.0,
            &mut tx,
            actor,
            "plan.create",
            target,
            None,
            Some(json!({ "name": name })),
        )
        .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(id)
    }

    /// Sets what is named and leaves the rest; the answer is what that has changed. Holds from the next message on. A call that
    /// changes nothing leaves no trace.
    pub async fn set_limits(
        &self,
        actor: &Actor,
        id: PlanId,
        settings: Vec<impl Into<LimitSetting>>,
    ) -> Result<LimitChanges, Error> {
        let settings: Vec<LimitSetting> = settings.into_iter().map(Into::into).collect();
        let mut tx = self.0.db.begin().await?;
        let name = plans::name(&mut tx, id).await?.ok_or(Error::NotFound("the plan"))?;
        plans::lock(&mut tx, id).await?;
        let current = Current::of_plan(&mut tx, id).await?;
        let changes = current.changes(&mut tx, &settings).await?;
        if changes == LimitChanges::default() {
            return Ok(changes);
        }
        for change in &changes.limits {
            plans::set_limit(&mut tx, id, change.kind, change.after).await?;
        }
        let (zone, soft_percent) = current.manner_after(&changes);
        plans::set_manner(&mut tx, id, &zone, soft_percent).await?;
        let target = Target {
            kind: "plan",
            id: id.to_string(),
            name: &name,
        };
        let (before, after) = recorded(&changes);
        record(&self.0, &mut tx, actor, "plan.limits", target, before, after).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(changes)
    }

    /// Lets the users of a plan choose just these models; none: all that are shown. Holds from the next message on. A call that
    /// changes nothing leaves no trace.
    pub async fn set_models(&self, actor: &Actor, id: PlanId, models: &[String]) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let name = plans::name(&mut tx, id).await?.ok_or(Error::NotFound("the plan"))?;
        plans::lock(&mut tx, id).await?;
        let before = plans::models(&mut tx, id).await?;
        let choice = self.choice(&before);
        if models.iter().any(|model| !choice.contains(model)) {
            return Err(Error::Invalid("chat models of the list"));
        }
        let after: Vec<String> = choice.into_iter().filter(|model| models.contains(model)).collect();
        if after == before {
            return Ok(());
        }
        plans::set_models(&mut tx, id, &after).await?;
        let target = Target {
            kind: "plan",
            id: id.to_string(),
            name: &name,
        };
        let state = |models: &[String]| Some(json!({ "models": models }));
        record(
            &self.0,
            &mut tx,
            actor,
            "plan.models",
            target,
            state(&before),
            state(&after),
        )
        .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    /// What a plan can list: all chat models, and what it lists already and nobody offers now.
    pub(crate) fn choice(&self, listed: &[String]) -> Vec<String> {
        let mut choice = self.0.gateway().chat_names();
        let gone: Vec<String> = listed.iter().filter(|name| !choice.contains(name)).cloned().collect();
        choice.extend(gone);
        choice
    }
}

/// As people write it, so that the trail reads well: dollars, not nano-dollars.
pub(crate) fn shown(kind: LimitKind, amount: Option<i64>) -> Value {
    match amount {
        None => Value::Null,
        Some(_) => kind.show_amount(amount).into(),
    }
}
