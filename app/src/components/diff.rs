//! What a change changed, field by field.

use std::collections::BTreeMap;

use leptos::prelude::*;
use serde_json::Value;

use crate::i18n::use_texts;

/// Before and after, one row per field; rows that changed come first and are marked.
#[component]
pub fn Diff(before: Option<Value>, after: Option<Value>) -> impl IntoView {
    let t = use_texts();
    let rows = rows(before.as_ref(), after.as_ref());
    view! {
        <div class="table-scroll" tabindex="0" role="group" aria-label=t.diff_label>
            <table class="table diff">
                <thead>
                    <tr>
                        <th scope="col">{t.diff_field}</th>
                        <th scope="col">{t.diff_before}</th>
                        <th scope="col">{t.diff_after}</th>
                    </tr>
                </thead>
                <tbody>
                    {rows
                        .into_iter()
                        .map(|row| {
                            let changed = row.before != row.after;
                            view! {
                                <tr class:changed=changed>
                                    <th scope="row">{row.field}</th>
                                    <td>{side(row.before, "del", changed)}</td>
                                    <td>{side(row.after, "ins", changed)}</td>
                                </tr>
                            }
                        })
                        .collect_view()}
                </tbody>
            </table>
        </div>
    }
}

fn side(value: Option<String>, mark: &'static str, changed: bool) -> AnyView {
    match value {
        None => view! { <span class="muted">"—"</span> }.into_any(),
        Some(text) if changed && mark == "del" => view! { <del>{text}</del> }.into_any(),
        Some(text) if changed => view! { <ins>{text}</ins> }.into_any(),
        Some(text) => view! { <span>{text}</span> }.into_any(),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    field: String,
    before: Option<String>,
    after: Option<String>,
}

fn rows(before: Option<&Value>, after: Option<&Value>) -> Vec<Row> {
    let mut fields: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    if let Some(before) = before {
        flatten(String::new(), before, &mut |field, text| {
            fields.entry(field).or_default().0 = Some(text);
        });
    }
    if let Some(after) = after {
        flatten(String::new(), after, &mut |field, text| {
            fields.entry(field).or_default().1 = Some(text);
        });
    }
    let mut rows: Vec<Row> = fields
        .into_iter()
        .map(|(field, (before, after))| Row { field, before, after })
        .collect();
    rows.sort_by_key(|row| row.before == row.after);
    rows
}

fn flatten(field: String, value: &Value, take: &mut impl FnMut(String, String)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let field = if field.is_empty() {
                    name.clone()
                } else {
                    format!("{field}.{name}")
                };
                flatten(field, value, take);
            }
        }
        Value::Object(_) => {}
        Value::Null => take(name_of(field), "∅".to_owned()),
        Value::String(text) => take(name_of(field), text.clone()),
        other => take(name_of(field), other.to_string()),
    }
}

fn name_of(field: String) -> String {
    if field.is_empty() { "·".to_owned() } else { field }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changed_fields_come_first_and_missing_ones_stay_empty() {
        let rows = rows(
            Some(&json!({"a": 1, "z": {"deep": true}})),
            Some(&json!({"a": 1, "z": {"deep": false}, "new": "x"})),
        );
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.field.as_str(), row.before.as_deref(), row.after.as_deref()))
            .collect();
        assert_eq!(
            shown,
            vec![
                ("new", None, Some("x")),
                ("z.deep", Some("true"), Some("false")),
                ("a", Some("1"), Some("1")),
            ]
        );
    }
}
