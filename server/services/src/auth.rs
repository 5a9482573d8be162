//! Signing in, the first owner, and the one place that turns a session into an [`Actor`].

use std::net::{IpAddr, Ipv6Addr};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Email, Password, Permission, Role, StaffId,
    views::{BotTransport, Me, SetupState},
};
use rand::Rng;
use repositories::staff::{self, Staff};
use secrecy::SecretString;
use serde_json::json;

use crate::{
    Actor, Error, Origin, Services,
    audit::{Target, record},
};

/// Under this name a session keeps who is signed in.
pub const SESSION_STAFF: &str = "staff";
const SETUP_LINK_DEAD: &str = "this link was used or is out of date; start botdeck again for a new one";

/// Memory in KiB, passes, lanes: about 100 ms on one core of a small server (`bin/bench argon2`), above OWASP's floor of
/// 19 MiB and 2 passes.
const WORK: (u32, u32, u32) = (47_104, 2, 1);

/// Free attempts before each further one has to wait: of one client on one account, of one client on all accounts (an office may
/// share an address), and of everybody on one account. The last is high, or strangers could keep the account's owner out.
const FREE_OF_PAIR: i32 = 5;
const FREE_OF_CLIENT: i32 = 20;
const FREE_OF_ACCOUNT: i32 = 100;
/// The longest wait.
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(15);
/// A quiet time after which failures are forgotten.
const FORGET_AFTER: TimeDelta = TimeDelta::hours(1);
const SETUP_LINK_LIVES: TimeDelta = TimeDelta::hours(24);

/// Sign-in, sign-out and permissions.
pub struct Auth(pub(crate) Services);

impl Auth {
    pub async fn has_owner(&self) -> Result<bool, Error> {
        Ok(staff::has_owner(&mut *self.0.db.acquire().await?).await?)
    }

    /// A fresh token for the set-up link, or `None` when there is an owner already. The one before it stops working.
    pub async fn issue_setup_token(&self) -> Result<Option<String>, Error> {
        if self.has_owner().await? {
            return Ok(None);
        }
        let mut bytes = [0_u8; 24];
        rand::rng().fill(&mut bytes);
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let mut tx = self.0.db.begin().await?;
        staff::lock_setup(&mut tx).await?;
        staff::replace_setup_token(&mut tx, &token_hash(&token), self.0.now() + SETUP_LINK_LIVES).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(Some(token))
    }

    /// Makes the owner by the one-time link.
    pub async fn redeem_setup(
        &self,
        token: &str,
        name: &str,
        email: Email,
        password: Password,
        origin: Origin,
    ) -> Result<StaffId, Error> {
        // Before the costly hash: anybody may ask.
        if !staff::setup_token_is_good(&mut *self.0.db.acquire().await?, &token_hash(token), self.0.now()).await? {
            return Err(Error::Conflict(SETUP_LINK_DEAD));
        }
        let hash = self.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        staff::lock_setup(&mut tx).await?;
        if !staff::use_setup_token(&mut tx, &token_hash(token), self.0.now()).await?
            || staff::has_owner(&mut tx).await?
        {
            return Err(Error::Conflict(SETUP_LINK_DEAD));
        }
        let actor = Actor {
            origin,
            ..Actor::system("set-up link")
        };
        let id = self.insert(&mut tx, &actor, name, email, Role::Owner, hash).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(id)
    }

    /// Adds a member of staff. A name is made of the address when none is given.
    pub async fn create_staff(
        &self,
        actor: &Actor,
        email: Email,
        role: Role,
        password: Password,
    ) -> Result<StaffId, Error> {
        let hash = self.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        let name = email.as_str().split('@').next().unwrap_or_default().to_owned();
        let id = self.insert(&mut tx, actor, &name, email, role, hash).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(id)
    }

    async fn insert(
        &self,
        tx: &mut repositories::PgConnection,
        actor: &Actor,
        name: &str,
        email: Email,
        role: Role,
        password_hash: String,
    ) -> Result<StaffId, Error> {
        let name = match name.trim() {
            "" => email.as_str().split('@').next().unwrap_or_default().to_owned(),
            name if name.chars().count() <= 64 => name.to_owned(),
            _ => return Err(Error::Invalid("a name of 1 to 64 characters")),
        };
        let id = StaffId(uuid::Uuid::now_v7());
        let member = Staff {
            id,
            email: email.into(),
            name,
            role,
            password_hash,
        };
        staff::insert(tx, &member, self.0.now()).await.map_err(|error| {
            if error.is_duplicate() {
                Error::Conflict("this e-mail address has an account already")
            } else {
                error.into()
            }
        })?;
        let target = Target {
            kind: "staff",
            id: id.to_string(),
            name: &member.name,
        };
        record(
            &self.0,
            tx,
            actor,
            "staff.create",
            target,
            None,
            Some(json!({ "email": member.email, "role": role })),
        )
        .await?;
        Ok(id)
    }

    pub async fn reset_password(&self, actor: &Actor, email: &Email, password: Password) -> Result<(), Error> {
        let hash = self.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        let member = staff::by_email(&mut tx, email)
            .await?
            .ok_or(Error::NotFound("a member of staff with this address"))?;
        staff::set_password(&mut tx, member.id, &hash).await?;
        // Guesses at the old one do not keep its owner from using the new one.
        staff::forget_failures_under(&mut tx, &of_account(email)).await?;
        // Whoever is signed in with the old password, and perhaps should not be, is out.
        repositories::sessions::delete_of_staff(&mut tx, SESSION_STAFF, member.id).await?;
        let target = Target {
            kind: "staff",
            id: member.id.to_string(),
            name: &member.name,
        };
        record(&self.0, &mut tx, actor, "staff.reset_password", target, None, None).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    /// Checks address and password. Unknown and wrong look the same and take the same time. Failures are slowed down by client and
    /// account together, and with more patience by each of them alone.
    pub async fn sign_in(&self, email: &Email, password: &Password, origin: Origin) -> Result<StaffId, Error> {
        let now = self.0.now();
        let client = client(origin.ip.as_deref());
        let account = of_account(email);
        let keys = [
            (format!("{account}{client}"), FREE_OF_PAIR),
            (format!("ip:{client}"), FREE_OF_CLIENT),
            (format!("{account}all"), FREE_OF_ACCOUNT),
        ];
        // The permit comes first: of many guesses at once, each is looked at when those before it have been counted.
        let permit = self.hashing_permit().await?;
        let mut db = self.0.db.acquire().await?;
        for (key, free) in &keys {
            if let Some((failures, last)) = staff::failures(&mut db, key).await?
                && let Some(wait) = wait_left(failures - free, last, now)
            {
                metrics::counter!("botdeck_sign_ins_total", "outcome" => "throttled").increment(1);
                return Err(Error::Throttled { retry_after_s: wait });
            }
        }
        let member = staff::by_email(&mut db, email).await?;
        drop(db);
        let hash = member
            .as_ref()
            .map_or_else(|| DUMMY_HASH.to_owned(), |member| member.password_hash.clone());
        let right = verify(password.clone(), hash).await?;
        let Some(member) = member.filter(|_| right) else {
            let mut tx = self.0.db.begin().await?;
            let [pair, client, everybody] = &keys;
            let count = async |tx: &mut _, key| staff::count_failure(tx, key, now, now - FORGET_AFTER).await;
            let of_pair = count(&mut tx, &pair.0).await?;
            count(&mut tx, &client.0).await?;
            // A client that is slowed down by itself slows nobody else: it takes many of them to use up the account's attempts.
            if of_pair <= FREE_OF_PAIR {
                count(&mut tx, &everybody.0).await?;
            }
            tx.commit().await.map_err(repositories::Error::from)?;
            metrics::counter!("botdeck_sign_ins_total", "outcome" => "refused").increment(1);
            return Err(Error::BadLogin);
        };
        drop(permit);
        let mut tx = self.0.db.begin().await?;
        // The client's own count stays: one account of one's own does not buy guesses at others.
        staff::forget_failures_under(&mut tx, &account).await?;
        let actor = Actor::staff(member.id, member.name.clone(), member.role, origin);
        let target = Target {
            kind: "staff",
            id: member.id.to_string(),
            name: &member.name,
        };
        record(&self.0, &mut tx, &actor, "staff.sign_in", target, None, None).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        metrics::counter!("botdeck_sign_ins_total", "outcome" => "signed_in").increment(1);
        Ok(member.id)
    }

    pub async fn sign_out(&self, id: StaffId, origin: Origin) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        if let Some(member) = staff::by_id(&mut tx, id).await? {
            let actor = Actor::staff(id, member.name.clone(), member.role, origin);
            let target = Target {
                kind: "staff",
                id: id.to_string(),
                name: &member.name,
            };
            record(&self.0, &mut tx, &actor, "staff.sign_out", target, None, None).await?;
        }
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    pub async fn me(&self, id: StaffId) -> Result<Option<Me>, Error> {
        let member = staff::by_id(&mut *self.0.db.acquire().await?, id).await?;
        Ok(member.map(|member| Me {
            id,
            name: member.name,
            email: member.email,
            role: member.role,
            permissions: member.role.permissions(),
        }))
    }

    /// Asks for one permission; the only way to an [`Actor`] for staff. The role is read anew each time, so that taking it
    /// away works at once.
    pub async fn authorise(&self, id: Option<StaffId>, permission: Permission, origin: Origin) -> Result<Actor, Error> {
        let id = id.ok_or(Error::SignedOut)?;
        let member = staff::by_id(&mut *self.0.db.acquire().await?, id)
            .await?
            .ok_or(Error::SignedOut)?;
        if !member.role.allows(permission) {
            return Err(Error::Forbidden(permission));
        }
        Ok(Actor::staff(id, member.name, member.role, origin))
    }

    async fn hashing_permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        self.0
            .throttle_hashing
            .acquire()
            .await
            .map_err(|_| Error::Internal("hashing is closed"))
    }

    async fn hash(&self, password: Password) -> Result<String, Error> {
        let _permit = self.hashing_permit().await?;
        tokio::task::spawn_blocking(move || hash_now(&password))
            .await
            .map_err(|_| Error::Internal("hashing panicked"))?
    }
}

/// The caller holds a permit.
async fn verify(password: Password, hash: String) -> Result<bool, Error> {
    tokio::task::spawn_blocking(move || {
        let hash = PasswordHash::new(&hash).map_err(|_| Error::Internal("a stored password hash is not readable"))?;
        Ok(Argon2::default()
            .verify_password(password.expose().as_bytes(), &hash)
            .is_ok())
    })
    .await
    .map_err(|_| Error::Internal("hashing panicked"))?
}

/// A hash of nothing in particular with the same work factor, so that unknown addresses take as long as known ones.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=47104,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$Kn0pxXAmlfqdLsVvqI+PXEv3pTzPUNnfVZEZlI3ld0Y";

fn hash_now(password: &Password) -> Result<String, Error> {
    let (memory, passes, lanes) = WORK;
    let params = Params::new(memory, passes, lanes, None).map_err(|_| Error::Internal("bad work factor"))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.expose().as_bytes())
        .map_err(|_| Error::Internal("a password could not be hashed"))?;
    Ok(hash.to_string())
}

/// One hash with the work factor in use, for `bin/bench argon2`.
pub fn password_hash_for_bench(password: &Password) -> Result<String, Error> {
    hash_now(password)
}

fn token_hash(token: &str) -> Vec<u8> {
    blake3::hash(token.as_bytes()).as_bytes().to_vec()
}

/// What the keys of an account's failures begin with. An address holds no space.
fn of_account(email: &Email) -> String {
    format!("email:{email} from ")
}

/// Whom failures are counted for. Of IPv6 the network: everybody who has an address there has all of its 2⁶⁴.
fn client(ip: Option<&str>) -> String {
    match ip.map(|ip| (ip, ip.parse::<IpAddr>().map(|ip| ip.to_canonical()))) {
        None => "unknown".to_owned(),
        Some((_, Ok(IpAddr::V6(ip)))) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        Some((_, Ok(ip))) => ip.to_string(),
        Some((text, Err(_))) => text.to_owned(),
    }
}

/// Seconds until the next attempt is heard, when so many (from 0) were made beyond the free ones: each waits twice as long.
fn wait_left(beyond: i32, last: DateTime<Utc>, now: DateTime<Utc>) -> Option<u64> {
    if beyond < 0 || now - last > FORGET_AFTER {
        return None;
    }
    let doublings = u32::try_from(beyond).unwrap_or(0).min(10);
    let wait = TimeDelta::seconds(2_i64 << doublings).min(LONGEST_WAIT);
    let left = last + wait - now;
    (left > TimeDelta::zero()).then(|| u64::try_from(left.num_milliseconds()).unwrap_or(0).div_ceil(1000))
}

/// What the first visit shows.
pub struct Setup(pub(crate) Services);

impl Setup {
    pub async fn state(&self) -> Result<SetupState, Error> {
        let mut db = self.0.db.acquire().await?;
        let bots = repositories::bots::all(&mut db).await?;
        Ok(SetupState {
            has_owner: staff::has_owner(&mut db).await?,
            has_telegram_bot: bots.iter().any(|bot| bot.transport == BotTransport::Telegram),
            has_model_key: !self.0.gateway.is_demo(),
            model: self.0.gateway.default_model().name.clone(),
        })
    }

    /// Makes the first owner from the settings, when there is none yet. A second start changes nothing.
    pub async fn owner_from_settings(&self, email: Email, password: SecretString) -> Result<bool, Error> {
        if self.0.auth().has_owner().await? {
            return Ok(false);
        }
        let password: Password = secrecy::ExposeSecret::expose_secret(&password).parse()?;
        match self
            .0
            .auth()
            .create_staff(&Actor::system("settings"), email, Role::Owner, password)
            .await
        {
            // Another replica was first.
            Err(Error::Conflict(_)) => Ok(false),
            other => other.map(|_| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_slow_down_and_the_wait_is_bounded() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(wait_left(-1, now, now), None);
        assert_eq!(wait_left(0, now, now), Some(2));
        assert_eq!(wait_left(2, now, now + TimeDelta::seconds(3)), Some(5));
        assert_eq!(wait_left(1000, now, now), Some(900));
        assert_eq!(wait_left(1000, now, now + TimeDelta::hours(2)), None);
    }

    #[test]
    fn a_client_is_an_address_of_the_old_kind_or_a_network_of_the_new() {
        for (ip, expected) in [
            (None, "unknown"),
            (Some("192.0.2.7"), "192.0.2.7"),
            (Some("::ffff:192.0.2.7"), "192.0.2.7"),
            (Some("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"),
            (Some("2001:db8:1:2::1"), "2001:db8:1:2::/64"),
            (Some("2001:db8:1:3::1"), "2001:db8:1:3::/64"),
        ] {
            assert_eq!(client(ip), expected);
        }
    }

    #[test]
    fn the_stand_in_hash_costs_as_much_as_a_real_one() {
        let real = hash_now(&"a long password".parse().unwrap()).unwrap();
        let cost = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(cost(&real), cost(DUMMY_HASH));
        assert!(PasswordHash::new(DUMMY_HASH).is_ok());
    }
}
