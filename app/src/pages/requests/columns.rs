//! The columns of the list beside the time, which is always there: it leads to the drawer.

use domain::views::requests::RequestRow;
use leptos::prelude::*;

use super::{cache_words, result, way, who};
use crate::{
    components::Column,
    i18n::{Texts, duration, group, money, use_texts},
};

/// What can be seen of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestColumn {
    Who,
    Model,
    Tokens,
    Cost,
    First,
    Total,
    Felt,
    Result,
    Cache,
    Status,
    Trace,
    Id,
}

impl Column for RequestColumn {
    const ALL: &'static [Self] = &[
        Self::Who,
        Self::Model,
        Self::Tokens,
        Self::Cost,
        Self::First,
        Self::Total,
        Self::Felt,
        Self::Result,
        Self::Cache,
        Self::Status,
        Self::Trace,
        Self::Id,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Who => "who",
            Self::Model => "model",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::First => "first",
            Self::Total => "total",
            Self::Felt => "felt",
            Self::Result => "result",
            Self::Cache => "cache",
            Self::Status => "status",
            Self::Trace => "trace",
            Self::Id => "id",
        }
    }

    fn is_usual(self) -> bool {
        !matches!(self, Self::Felt | Self::Cache | Self::Status | Self::Trace | Self::Id)
    }
}

impl RequestColumn {
    pub fn words(self, t: &'static Texts) -> &'static str {
        match self {
            Self::Who => t.request_who,
            Self::Model => t.request_model,
            Self::Tokens => t.request_tokens,
            Self::Cost => t.request_cost,
            Self::First => t.request_first,
            Self::Total => t.request_total,
            Self::Felt => t.request_felt,
            Self::Result => t.request_result,
            Self::Cache => t.request_cache,
            Self::Status => t.request_status,
            Self::Trace => t.request_trace,
            Self::Id => t.request_id,
        }
    }

    const fn is_number(self) -> bool {
        matches!(
            self,
            Self::Tokens | Self::Cost | Self::First | Self::Total | Self::Felt | Self::Status
        )
    }

    pub fn head(self, t: &'static Texts) -> AnyView {
        let class = self.is_number().then_some("number");
        view! {
            <th scope="col" class=class>
                {self.words(t)}
            </th>
        }
        .into_any()
    }

    pub fn cell(self, t: &'static Texts, row: &RequestRow) -> AnyView {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "—".to_owned());
        let content = match self {
            Self::Who => view! {
                <span>
                    {who(t, row)}
                    {row.bot.clone().map(|bot| view! { <span class="muted">{bot.name}</span> })}
                </span>
            }
            .into_any(),
            Self::Model => view! {
                <span>
                    {or_dash(Some(row.alias.clone()).filter(|alias| !alias.is_empty()))}
                    <span class="muted">{way(row)}</span>
                </span>
            }
            .into_any(),
            Self::Tokens => [row.prompt_tokens, row.completion_tokens, row.cached_tokens]
                .map(group)
                .join(" / ")
                .into_any(),
            Self::Cost => money(row.cost).into_any(),
            Self::First => or_dash(row.first_token_ms.map(|ms| duration(t, ms))).into_any(),
            Self::Total => duration(t, row.total_ms).into_any(),
            Self::Felt => duration(t, row.felt_ms).into_any(),
            Self::Result => result(t, row),
            Self::Cache => or_dash(cache_words(t, row).map(str::to_owned)).into_any(),
            Self::Status => or_dash(answered_with(row).map(|status| status.to_string())).into_any(),
            Self::Trace => match row.trace {
                Some(trace) => view! { <code>{trace.to_string()}</code> }.into_any(),
                None => "—".into_any(),
            },
            Self::Id => view! { <code>{row.id.to_string()}</code> }.into_any(),
        };
        let class = match self {
            Self::Who => "cell-who",
            Self::Model => "cell-way",
            Self::Trace | Self::Id => "cell-id",
            _ if self.is_number() => "number",
            _ => "",
        };
        view! {
            <td data-label=self.words(t) class=class>
                {content}
            </td>
        }
        .into_any()
    }
}

/// The status that another program got, if it got one.
pub(super) fn answered_with(row: &RequestRow) -> Option<i32> {
    row.status.filter(|status| *status > 0)
}

/// What stands above a column, for the choice of them.
pub(super) fn words(column: RequestColumn) -> &'static str {
    column.words(use_texts())
}
