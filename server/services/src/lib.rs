//! Use cases. (Being filled in.)
#![allow(clippy::unused_async, unused_variables, dead_code)]
mod actor;
mod error;
pub use actor::{Actor, Origin};
use domain::{views::*, *};
pub use error::Error;
type R<T> = Result<T, Error>;
#[derive(Clone)]
pub struct Services;
pub struct Auth;
pub struct Setup;
pub struct OverviewService;
pub struct Users;
pub struct Conversations;
pub struct Plans;
pub struct Bots;
pub struct PlaygroundService;
pub struct Audit;
impl Services {
    pub fn auth(&self) -> Auth {
        Auth
    }
    pub fn setup(&self) -> Setup {
        Setup
    }
    pub fn overview(&self) -> OverviewService {
        OverviewService
    }
    pub fn users(&self) -> Users {
        Users
    }
    pub fn conversations(&self) -> Conversations {
        Conversations
    }
    pub fn plans(&self) -> Plans {
        Plans
    }
    pub fn bots(&self) -> Bots {
        Bots
    }
    pub fn playground(&self) -> PlaygroundService {
        PlaygroundService
    }
    pub fn audit(&self) -> Audit {
        Audit
    }
}
fn no<T>() -> R<T> {
    Err(Error::NotFound("stub"))
}
impl Auth {
    pub async fn has_owner(&self) -> R<bool> {
        no()
    }
    pub async fn redeem_setup(
        &self,
        token: &str,
        name: &str,
        email: Email,
        password: Password,
        origin: Origin,
    ) -> R<StaffId> {
        no()
    }
    pub async fn sign_in(&self, email: &Email, password: &Password, origin: Origin) -> R<StaffId> {
        no()
    }
    pub async fn sign_out(&self, staff: StaffId, origin: Origin) -> R<()> {
        no()
    }
    pub async fn me(&self, staff: StaffId) -> R<Option<Me>> {
        no()
    }
    pub async fn authorise(&self, staff: Option<StaffId>, permission: Permission, origin: Origin) -> R<Actor> {
        no()
    }
}
impl Setup {
    pub async fn state(&self) -> R<SetupState> {
        no()
    }
}
impl OverviewService {
    pub async fn today(&self, a: &Actor) -> R<Overview> {
        no()
    }
}
impl Users {
    pub async fn list(&self, a: &Actor, q: UserQuery) -> R<Page<UserRow>> {
        no()
    }
    pub async fn get(&self, a: &Actor, id: UserId) -> R<Option<UserDetail>> {
        no()
    }
    pub async fn block(&self, a: &Actor, id: UserId, r: BlockReason) -> R<()> {
        no()
    }
    pub async fn unblock(&self, a: &Actor, id: UserId) -> R<()> {
        no()
    }
    pub async fn set_plan(&self, a: &Actor, id: UserId, p: PlanId) -> R<()> {
        no()
    }
}
impl Conversations {
    pub async fn transcript(&self, a: &Actor, id: ConversationId, older: Option<String>) -> R<Option<Transcript>> {
        no()
    }
}
impl Plans {
    pub async fn list(&self, a: &Actor) -> R<Vec<PlanView>> {
        no()
    }
    pub async fn set_limits(&self, a: &Actor, id: PlanId, l: Vec<(LimitKind, Option<i64>)>) -> R<()> {
        no()
    }
    pub async fn create(&self, a: &Actor, n: PlanName) -> R<PlanId> {
        no()
    }
}
impl Bots {
    pub async fn list(&self, a: &Actor) -> R<Vec<BotRow>> {
        no()
    }
    pub async fn add(&self, a: &Actor, token: secrecy::SecretString, mode: IntakeMode) -> R<BotRow> {
        no()
    }
    pub async fn set_enabled(&self, a: &Actor, id: BotId, on: bool) -> R<()> {
        no()
    }
}
impl PlaygroundService {
    pub async fn open(&self, a: &Actor, id: BotId) -> R<Option<Playground>> {
        no()
    }
    pub async fn send(&self, a: &Actor, id: BotId, text: String) -> R<()> {
        no()
    }
    pub async fn changes(&self, a: &Actor, id: BotId, after: i64) -> R<(Vec<PlaygroundMessage>, i64)> {
        no()
    }
}
impl Audit {
    pub async fn list(&self, a: &Actor, q: AuditQuery) -> R<Page<AuditRow>> {
        no()
    }
    pub async fn actions(&self, a: &Actor) -> R<Vec<String>> {
        no()
    }
}
