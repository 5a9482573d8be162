//! Small widgets with no data of their own. None calls a server function, none sets an inline style (the content policy
//! would refuse it), and text from people or models is only ever a text node.

mod chart;
mod columns;
mod diff;
mod feedback;
mod icon;
mod inputs;
mod layout;
mod limit;
mod moment;
mod rich_text;
mod show;
mod time;

pub use chart::{Chart, ChartPoint};
pub use columns::{Column, ColumnChoice, Columns};
pub use diff::Diff;
pub use feedback::{Confirm, Empty, ErrorBox, FormFailure, Notice, PageError, Saved, Skeleton, Tone, page};
pub use icon::{Glyph, Icon};
pub use inputs::{Button, Choice, Field, Look, PasswordField, QueryForm, SearchField, SecretField};
pub use layout::{Card, PageHead, Pager};
pub use limit::{LimitLine, percent};
pub use moment::MomentField;
pub use rich_text::Rich;
pub use show::{Badge, Bar, BarLevel, Copy, Stat, level};
pub use time::{Ago, Time, TimeStyle, exact};
