//! Who acts. Only [`crate::Auth::authorise`] and [`Actor::system`] make one, so holding an `Actor` means the permission was asked for.

use domain::{Lang, Permission, Role, StaffId};

/// Where a request came from, for the audit trail and for throttling.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Address of the client as the outermost trusted proxy saw it.
    pub ip: Option<String>,
    /// Trace id of the request.
    pub request_id: Option<String>,
    /// The language in which the person reads.
    pub lang: Lang,
}

/// A member of staff, or the program itself, with the permission that was asked for.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(crate) staff: Option<StaffId>,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) origin: Origin,
}

impl Actor {
    /// The program itself, or an operator at the command line; `name` says which.
    pub fn system(name: &str) -> Self {
        Self {
            staff: None,
            name: name.to_owned(),
            role: Role::Owner,
            origin: Origin::default(),
        }
    }

    pub(crate) fn staff(id: StaffId, name: String, role: Role, origin: Origin) -> Self {
        Self {
            staff: Some(id),
            name,
            role,
            origin,
        }
    }

    /// For what a page shows or hides beyond the permission it asked for.
    pub fn may(&self, permission: Permission) -> bool {
        self.role.allows(permission)
    }
}
