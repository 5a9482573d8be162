//! Who may do what: scopes are asked for, roles are named sets of scopes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $scope:literal),+ $(,)?) => {
        /// One scope. A service asks for exactly one; a role carries many.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Permission {
            $($(#[$doc])* #[serde(rename = $scope)] $name,)+
        }

        impl Permission {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The scope as written in the audit trail and in errors: `users:read`.
            pub const fn scope(self) -> &'static str {
                match self { $(Self::$name => $scope),+ }
            }
        }
    };
}

permissions! {
    /// Figures of the whole deployment, without names or texts.
    ReadOverview = "overview:read",
    /// Names, plans and limits of users; no texts.
    ReadUsers = "users:read",
    BlockUsers = "users:block",
    /// Move a user to another plan.
    ChangePlans = "users:plan",
    /// Private texts; each reading is recorded.
    ReadConversations = "conversations:read",
    ReadLimits = "limits:read",
    WriteLimits = "limits:write",
    ReadBots = "bots:read",
    WriteBots = "bots:write",
    /// Providers, models, prices and names; no keys.
    ReadModels = "models:read",
    WriteModels = "models:write",
    /// Enter or replace bot tokens and provider keys; nobody may read them back.
    WriteSecrets = "secrets:write",
    /// Talk to a bot in the playground, at the deployment's cost.
    UsePlayground = "playground:use",
    /// The queue: what runs, what failed and why; no texts.
    ReadJobs = "jobs:read",
    /// Put failed jobs back into the queue, or give them up.
    WriteJobs = "jobs:write",
    /// The log of calls to models: who, which, what it cost and what failed; no texts.
    ReadRequests = "requests:read",
    /// API keys of other programs; never the keys themselves.
    ReadKeys = "keys:read",
    /// Make and revoke API keys.
    WriteKeys = "keys:write",
    ReadAudit = "audit:read",
    ManageStaff = "staff:manage",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scope())
    }
}

/// A named set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, staff included.
    Owner,
    /// Everything but staff.
    Admin,
    /// Finds out what happened to a user and helps; sees no secrets, changes no limits.
    Support,
    /// Figures only, no private text.
    Viewer,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Support, Self::Viewer];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Support => "support",
            Self::Viewer => "viewer",
        }
    }

    pub fn allows(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Self::Owner => true,
            Self::Admin => permission != P::ManageStaff,
            Self::Support => matches!(
                permission,
                P::ReadOverview
                    | P::ReadUsers
                    | P::BlockUsers
                    | P::ReadConversations
                    | P::ReadLimits
                    | P::ReadBots
                    | P::ReadModels
                    | P::ReadJobs
                    | P::ReadRequests
                    | P::UsePlayground
            ),
            Self::Viewer => matches!(
                permission,
                P::ReadOverview | P::ReadLimits | P::ReadBots | P::ReadModels
            ),
        }
    }

    pub fn permissions(self) -> Vec<Permission> {
        Permission::ALL
            .iter()
            .copied()
            .filter(|permission| self.allows(*permission))
            .collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or(Invalid("owner, admin, support or viewer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grow_from_viewer_to_owner() {
        for pair in [Role::Viewer, Role::Support, Role::Admin, Role::Owner].windows(2) {
            for permission in pair[0].permissions() {
                assert!(
                    pair[1].allows(permission),
                    "{} lacks {permission} of {}",
                    pair[1],
                    pair[0]
                );
            }
        }
        assert!(!Role::Support.allows(Permission::WriteSecrets));
        assert!(!Role::Support.allows(Permission::WriteLimits));
        assert!(!Role::Viewer.allows(Permission::ReadConversations));
        assert!(!Role::Viewer.allows(Permission::ReadUsers));
        assert!(!Role::Viewer.allows(Permission::ReadJobs));
        assert!(Role::Support.allows(Permission::ReadRequests) && !Role::Viewer.allows(Permission::ReadRequests));
        assert!(!Role::Support.allows(Permission::ReadKeys) && Role::Admin.allows(Permission::WriteKeys));
        assert!(Role::Support.allows(Permission::ReadJobs) && !Role::Support.allows(Permission::WriteJobs));
    }
}
