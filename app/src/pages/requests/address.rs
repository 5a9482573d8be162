//! What the page's address says.

use domain::{
    Moment, Past,
    views::requests::{Outcome, RequestQuery},
};
use leptos_router::{location::Url, params::ParamsMap};
use uuid::Uuid;

use super::columns::RequestColumn;
use crate::{components::Columns, state::with_filters};

/// Where the list is.
pub(super) const PAGE: &str = "/requests";
/// Where the same is as a file.
const FILE: &str = "/api/requests.csv";

/// Which calls are shown, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    pub query: RequestQuery,
    pub columns: Columns<RequestColumn>,
}

impl Shown {
    /// What the address says wrongly counts as not said, but for times, which the server refuses.
    pub fn read(params: &ParamsMap) -> Self {
        let get = |name: &str| {
            params
                .get(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let query = RequestQuery {
            outcome: get("outcome").and_then(|text| text.parse().ok()).unwrap_or_default(),
            code: get("code"),
            model: get("model"),
            bot: get("bot").and_then(|text| text.parse().ok()),
            user: get("user").and_then(|text| text.parse().ok()),
            key: get("key").and_then(|text| text.parse().ok()),
            conversation: get("conversation").and_then(|text| text.parse().ok()),
            past: get("past").and_then(|text| text.parse().ok()).unwrap_or_default(),
            from: get("from"),
            to: get("to"),
            after: get("after"),
        };
        Self {
            query,
            columns: Columns::read(params),
        }
    }

    /// Other calls, from the first page on, in the same columns.
    pub fn narrowed(&self, query: RequestQuery) -> Self {
        Self {
            query: RequestQuery { after: None, ..query },
            columns: self.columns.clone(),
        }
    }

    /// The list; `open` is the call whose drawer is open.
    pub fn address(&self, after: Option<&str>, open: Option<Uuid>) -> String {
        let place = [
            ("after", after.map(Url::escape).unwrap_or_default()),
            ("open", open.map(|id| id.to_string()).unwrap_or_default()),
        ];
        with_filters(PAGE, self.said(Url::escape).into_iter().chain(place))
    }

    pub fn file(&self) -> String {
        with_filters(FILE, self.said(Url::escape))
    }

    /// For a form that is to keep it all but the columns.
    pub fn kept(&self) -> Vec<(&'static str, String)> {
        let mut kept = self.said(str::to_owned);
        kept.retain(|(name, _)| *name != "columns");
        kept
    }

    /// Counted from now, where no time is said.
    pub fn past(&self) -> Option<Past> {
        let says_when = self.query.from.is_some() || self.query.to.is_some();
        (!says_when).then_some(self.query.past)
    }

    fn said(&self, escape: fn(&str) -> String) -> Vec<(&'static str, String)> {
        let query = &self.query;
        let text = |text: &Option<String>| text.as_deref().map(escape).unwrap_or_default();
        // A colon may stand in an address as it is.
        let time = |text: &Option<String>| {
            let moment = text.as_deref().and_then(|text| text.parse::<Moment>().ok());
            moment.map_or_else(
                || text.as_deref().map(escape).unwrap_or_default(),
                |moment| moment.to_string(),
            )
        };
        let outcome = (query.outcome != Outcome::Any).then(|| query.outcome.name().to_owned());
        let past = self.past().filter(|past| *past != Past::All);
        vec![
            ("outcome", outcome.unwrap_or_default()),
            ("code", text(&query.code)),
            ("model", text(&query.model)),
            ("bot", query.bot.map(|id| id.to_string()).unwrap_or_default()),
            ("user", query.user.map(|id| id.to_string()).unwrap_or_default()),
            ("key", query.key.map(|id| id.to_string()).unwrap_or_default()),
            (
                "conversation",
                query.conversation.map(|id| id.to_string()).unwrap_or_default(),
            ),
            ("past", past.map(|past| past.name().to_owned()).unwrap_or_default()),
            ("from", time(&query.from)),
            ("to", time(&query.to)),
            ("columns", self.columns.address()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pairs: &[(&'static str, &str)]) -> Shown {
        let params: ParamsMap = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Shown::read(&params)
    }

    #[test]
    fn the_address_keeps_what_it_says() {
        let code = Url::escape("BD-AI-DOWN");
        let narrow = shown(&[("outcome", "failed"), ("code", "BD-AI-DOWN"), ("bot", "not an id")]);
        assert_eq!(
            narrow.address(None, None),
            format!("/requests?outcome=failed&code={code}")
        );
        assert_eq!(
            Shown::default().address(Some("1~2"), Some(Uuid::nil())),
            format!("/requests?after={}&open={}", Url::escape("1~2"), Uuid::nil())
        );
        assert_eq!(
            shown(&[("past", "day"), ("columns", "trace,who"), ("after", "1~2")]).file(),
            "/api/requests.csv?past=day&columns=who,trace"
        );
    }

    #[test]
    fn a_time_that_is_said_counts_for_more_than_one_from_now() {
        let both = shown(&[("past", "day"), ("from", "2026-11-24T10:30")]);
        assert_eq!(both.past(), None);
        assert_eq!(both.address(None, None), "/requests?from=2026-11-24T10:30Z");
        assert_eq!(shown(&[("past", "week")]).past(), Some(Past::Week));
        assert_eq!(shown(&[("past", "ever")]).past(), Some(Past::All));
        // What is no time stays, to be refused.
        let wrong = shown(&[("to", "yesterday")]);
        assert_eq!(wrong.query.to.as_deref(), Some("yesterday"));
        assert_eq!(wrong.address(None, None), "/requests?to=yesterday");
    }
}
