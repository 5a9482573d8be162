//! The list as a table of plain texts: numbers without signs or groups, times in UTC. What a column of the page holds together stands
//! in columns of its own.

use domain::{
    Lang,
    views::requests::{RequestQuery, RequestRow},
};

use super::{
    address::Shown,
    columns::{RequestColumn, answered_with},
    way,
};
use crate::{
    components::{Column, Columns, exact},
    i18n::{Texts, dollars, texts},
};

/// What an address of the list asks for, as a file.
pub struct RequestsTable {
    pub query: RequestQuery,
    columns: Columns<RequestColumn>,
    t: &'static Texts,
}

/// Reads an address of the list: `asked` is its query.
pub fn requests_table(asked: Vec<(String, String)>, lang: Lang) -> RequestsTable {
    let Shown { query, columns } = Shown::read(&asked.into_iter().collect());
    RequestsTable {
        query,
        columns,
        t: texts(lang),
    }
}

impl RequestsTable {
    /// The columns as addresses name them.
    pub fn names(&self) -> Vec<&'static str> {
        self.columns.iter().map(Column::name).collect()
    }

    pub fn head(&self) -> Vec<String> {
        let t = self.t;
        let with = |words: &str, unit: &str| vec![format!("{words}, {unit}")];
        let own = |words: &[&str]| words.iter().map(|words| (*words).to_owned()).collect::<Vec<_>>();
        let mut head = with(t.request_at, t.time_utc);
        for column in self.columns.iter() {
            head.extend(match column {
                RequestColumn::Who => own(&[t.request_user, t.request_key, t.request_bot]),
                RequestColumn::Model => own(&[t.request_asked_as, t.request_provider, t.request_model]),
                RequestColumn::Tokens => own(&[t.request_tokens_in, t.request_tokens_out, t.request_tokens_cached]),
                RequestColumn::Cost => with(column.words(t), "$"),
                RequestColumn::First | RequestColumn::Total | RequestColumn::Felt => with(column.words(t), t.ms),
                RequestColumn::Result => own(&[t.request_finish, t.request_code]),
                RequestColumn::Cache | RequestColumn::Status | RequestColumn::Trace | RequestColumn::Id => {
                    own(&[column.words(t)])
                }
            });
        }
        head
    }

    pub fn cells(&self, row: &RequestRow) -> Vec<String> {
        let mut cells = vec![exact(row.at)];
        for column in self.columns.iter() {
            cells.extend(match column {
                RequestColumn::Who => vec![
                    row.user.as_ref().map(|user| user.name.clone()).unwrap_or_default(),
                    row.key.as_ref().map(|key| key.name.clone()).unwrap_or_default(),
                    row.bot.as_ref().map(|bot| bot.name.clone()).unwrap_or_default(),
                ],
                RequestColumn::Model => vec![row.alias.clone(), way(row), row.model.clone()],
                RequestColumn::Tokens => [row.prompt_tokens, row.completion_tokens, row.cached_tokens]
                    .map(|tokens| tokens.to_string())
                    .into(),
                RequestColumn::Cost => vec![dollars(row.cost)],
                RequestColumn::First => vec![row.first_token_ms.map(|ms| ms.to_string()).unwrap_or_default()],
                RequestColumn::Total => vec![row.total_ms.to_string()],
                RequestColumn::Felt => vec![row.felt_ms.to_string()],
                RequestColumn::Result => vec![row.finish.clone(), row.code.clone().unwrap_or_default()],
                RequestColumn::Cache => vec![row.cache.clone()],
                RequestColumn::Status => vec![answered_with(row).map(|status| status.to_string()).unwrap_or_default()],
                RequestColumn::Trace => vec![row.trace.map(|trace| trace.to_string()).unwrap_or_default()],
                RequestColumn::Id => vec![row.id.to_string()],
            });
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use domain::Money;

    use super::{super::tests::call, *};

    #[test]
    fn every_line_has_a_cell_below_each_head() {
        let all = RequestColumn::ALL.iter().map(|column| column.name());
        let all = vec![("columns".to_owned(), all.collect::<Vec<_>>().join(","))];
        for asked in [all, Vec::new()] {
            let table = requests_table(asked, Lang::Ru);
            let (head, cells) = (table.head(), table.cells(&call()));
            assert_eq!(head.len(), cells.len(), "{head:?} {cells:?}");
        }
        let asked = vec![("columns".to_owned(), "tokens,cost,total".to_owned())];
        let table = requests_table(asked, Lang::En);
        let row = RequestRow {
            cost: Money::from_nanos(4_200_000),
            prompt_tokens: 12_000,
            ..call()
        };
        assert_eq!(
            table.head(),
            [
                "Time, UTC",
                "Tokens in",
                "Tokens out",
                "Tokens cached",
                "Cost, $",
                "Took, ms"
            ]
        );
        assert_eq!(
            table.cells(&row),
            ["1970-01-01T00:00:00Z", "12000", "90", "10", "0.0042", "1"]
        );
    }
}
