//! Charts drawn on the server as SVG: no script to load, readable without one, and the same figures as a table beside it.

use leptos::prelude::*;

use crate::i18n::{group, use_texts};

/// One bar: what happened, and how much of it went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartPoint {
    /// Below the axis and in the table.
    pub label: String,
    pub value: i64,
    /// Part of it, drawn on top in the colour of faults.
    pub faults: i64,
}

const WIDTH: i64 = 720;
const HEIGHT: i64 = 168;
const LEFT: i64 = 44;
const TOP: i64 = 10;
const BASE: i64 = 140;

/// Bars over time with a second, stacked series for what failed.
#[component]
pub fn Chart(
    /// What is drawn, in a few words.
    title: String,
    /// The same in a sentence, with the figures that matter.
    summary: String,
    /// Head of the first column of the table.
    along: &'static str,
    value_name: &'static str,
    fault_name: &'static str,
    points: Vec<ChartPoint>,
) -> impl IntoView {
    let t = use_texts();
    let top = ceiling(
        points
            .iter()
            .map(|point| point.value.max(point.faults))
            .max()
            .unwrap_or(0),
    );
    let count = i64::try_from(points.len().max(1)).unwrap_or(1);
    let step = (WIDTH - LEFT) * 100 / count;
    let bar_width = (step * 64 / 100).max(200);
    let height_of = move |value: i64| (value.max(0) * (BASE - TOP) * 100) / top.max(1);
    // Hundredths of a unit, written as decimals: exact on both sides of hydration, unlike floats.
    let unit = |hundredths: i64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let grid = [0, top / 2, top].map(|value| {
        let y = unit(BASE * 100 - height_of(value));
        view! {
            <g>
                <line class="chart-grid" x1=LEFT.to_string() x2=WIDTH.to_string() y1=y.clone() y2=y.clone() />
                <text class="chart-label" x=(LEFT - 8).to_string() y=y dy="4" text-anchor="end">{group(value)}</text>
            </g>
        }
    });
    let bars = points
        .iter()
        .enumerate()
        .map(|(index, point)| {
            let index = i64::try_from(index).unwrap_or(0);
            let x = LEFT * 100 + index * step + (step - bar_width) / 2;
            let faults = height_of(point.faults.min(point.value.max(point.faults)));
            let good = height_of((point.value - point.faults).max(0));
            let tip = format!(
                "{}: {} {}, {} {}",
                point.label,
                group(point.value),
                value_name,
                group(point.faults),
                fault_name
            );
            // A label under every sixth bar: they do not collide at any width.
            let label = (index % 6 == 0).then(|| {
                view! {
                    <text class="chart-label" x=unit(x + bar_width / 2) y=(BASE + 18).to_string() text-anchor="middle">
                        {point.label.clone()}
                    </text>
                }
            });
            view! {
                <g class="chart-column">
                    <title>{tip}</title>
                    <rect
                        class="chart-hit"
                        x=unit(LEFT * 100 + index * step)
                        y=TOP.to_string()
                        width=unit(step)
                        height=(BASE - TOP).to_string()
                    />
                    <rect
                        class="chart-good"
                        x=unit(x)
                        y=unit(BASE * 100 - good)
                        width=unit(bar_width)
                        height=unit(good)
                        rx="2"
                    />
                    <rect
                        class="chart-fault"
                        x=unit(x)
                        y=unit(BASE * 100 - good - faults)
                        width=unit(bar_width)
                        height=unit(faults)
                        rx="2"
                    />
                    {label}
                </g>
            }
        })
        .collect_view();
    let rows = points
        .iter()
        .map(|point| {
            view! {
                <tr>
                    <th scope="row">{point.label.clone()}</th>
                    <td class="number">{group(point.value)}</td>
                    <td class="number">{group(point.faults)}</td>
                </tr>
            }
        })
        .collect_view();
    view! {
        <figure class="chart">
            <figcaption class="legend">
                <span><i class="dot good"></i>{value_name}</span>
                <span><i class="dot fault"></i>{fault_name}</span>
            </figcaption>
            <svg viewBox=format!("0 0 {WIDTH} {HEIGHT}") role="img" aria-label=format!("{title}. {summary}")>
                <desc>{summary.clone()}</desc>
                {grid.collect_view()}
                {bars}
            </svg>
            <details class="chart-table">
                <summary>{t.chart_as_table}</summary>
                <table class="table">
                    <caption class="visually-hidden">{title.clone()}</caption>
                    <thead>
                        <tr>
                            <th scope="col">{along}</th>
                            <th scope="col" class="number">{value_name}</th>
                            <th scope="col" class="number">{fault_name}</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </details>
        </figure>
    }
}

/// The next round figure, so that the axis is read at a glance.
fn ceiling(value: i64) -> i64 {
    let mut unit = 1_i64;
    loop {
        for step in [4, 10, 20] {
            if value <= unit.saturating_mul(step) {
                return unit.saturating_mul(step);
            }
        }
        unit = unit.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn axes_end_on_round_figures() {
        for (value, top) in [
            (0, 4),
            (3, 4),
            (5, 10),
            (11, 20),
            (21, 40),
            (99, 100),
            (101, 200),
            (1_000_001, 2_000_000),
        ] {
            assert_eq!(super::ceiling(value), top, "{value}");
        }
    }
}
