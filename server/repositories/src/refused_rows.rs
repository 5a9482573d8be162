//! What the database says of rows themselves, whatever state it is in and whatever others do.

use crate::Error;

impl Error {
    /// One of the rows that were to be written cannot be, or not as it is: a value that cannot be kept, or that a constraint refuses
    /// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>, classes 21 to 23 and 54). Anything else may succeed later.
    pub fn refuses_row(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Encode(_)) => true,
            Self::Sql(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class))),
            _ => false,
        }
    }

    /// The partition of a row's month was not made. It is told as a constraint that has no name.
    pub fn lacks_partition(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error))
            if error.code().as_deref() == Some("23514") && error.constraint().is_none())
    }
}
