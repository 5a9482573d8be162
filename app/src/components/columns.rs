//! Which columns a table shows: ticked in a form, kept in the address.

use leptos::prelude::*;
use leptos_router::params::ParamsMap;

use super::{Button, Glyph, Icon, QueryForm};
use crate::i18n::use_texts;

/// A column that can be chosen.
pub trait Column: Copy + PartialEq + 'static {
    /// In the order of the table.
    const ALL: &'static [Self];

    /// In the address.
    fn name(self) -> &'static str;

    /// It is shown where nothing is chosen.
    fn is_usual(self) -> bool;
}

/// Those that are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns<C>(Vec<C>);

impl<C: Column> Columns<C> {
    /// What the address names: apart by commas, or each for itself as a form sends them. Names that nobody knows count for nothing; with
    /// none left, the usual ones are shown.
    pub fn read(params: &ParamsMap) -> Self {
        let asked = params.get_all("columns").unwrap_or_default();
        let names: Vec<&str> = asked.iter().flat_map(|names| names.split(',')).map(str::trim).collect();
        let known = C::ALL.iter().copied().filter(|column| names.contains(&column.name()));
        let known: Vec<C> = known.collect();
        if known.is_empty() { Self::usual() } else { Self(known) }
    }

    fn usual() -> Self {
        Self(C::ALL.iter().copied().filter(|column| column.is_usual()).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = C> {
        self.0.iter().copied()
    }

    /// As the address names them; empty for the usual ones.
    pub fn address(&self) -> String {
        if *self == Self::usual() {
            return String::new();
        }
        let names: Vec<&str> = self.0.iter().map(|column| column.name()).collect();
        names.join(",")
    }
}

impl<C: Column> Default for Columns<C> {
    fn default() -> Self {
        Self::usual()
    }
}

/// Opens the choice. A form like any other, so it works without script.
#[component]
pub fn ColumnChoice<C: Column>(
    /// The table's page.
    action: &'static str,
    /// What else its address says.
    kept: Vec<(&'static str, String)>,
    shown: Columns<C>,
    /// What stands above a column.
    words: fn(C) -> &'static str,
) -> impl IntoView {
    let t = use_texts();
    let kept = kept
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| view! { <input type="hidden" name=name value=value /> })
        .collect_view();
    let boxes = C::ALL
        .iter()
        .map(|&column| {
            let checked = shown.0.contains(&column);
            view! {
                <label class="check">
                    <input type="checkbox" name="columns" value=column.name() checked=checked />
                    <span>{words(column)}</span>
                </label>
            }
        })
        .collect_view();
    view! {
        <details class="menu column-choice">
            <summary class="button small">
                <Icon glyph=Glyph::Filter />
                <span>{t.columns}</span>
            </summary>
            <div class="menu-body">
                <QueryForm action class="columns-form" label=t.columns>
                    {kept} {boxes}
                    <Button>{t.columns_show}</Button>
                </QueryForm>
            </div>
        </details>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fruit {
        Apple,
        Pear,
        Plum,
    }

    impl Column for Fruit {
        const ALL: &'static [Self] = &[Self::Apple, Self::Pear, Self::Plum];

        fn name(self) -> &'static str {
            match self {
                Self::Apple => "apple",
                Self::Pear => "pear",
                Self::Plum => "plum",
            }
        }

        fn is_usual(self) -> bool {
            self != Self::Plum
        }
    }

    #[test]
    fn what_is_chosen_comes_back_in_the_order_of_the_table() {
        let read = |names: &[&str]| {
            let params: ParamsMap = names.iter().map(|name| ("columns", (*name).to_owned())).collect();
            Columns::<Fruit>::read(&params)
        };
        for (names, address) in [
            (vec!["plum,apple"], "apple,plum"),
            // As a form sends them.
            (vec!["plum", "apple"], "apple,plum"),
            (vec!["plum", "plum", "stone", " "], "plum"),
            // The usual ones need not be said.
            (vec!["pear", "apple"], ""),
            (vec![], ""),
            (vec!["stone"], ""),
            (vec![""], ""),
        ] {
            assert_eq!(read(&names).address(), address, "{names:?}");
        }
    }
}
