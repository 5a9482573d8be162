//! Charts drawn on the server as SVG: no script to load, readable without one, and the same figures as a table beside it.

use leptos::prelude::*;

use crate::i18n::{group, use_texts};

/// One bar: what went well, and what went wrong on top of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartPoint {
    /// Below the axis and in the table.
    pub label: String,
    pub value: i64,
    pub faults: i64,
}

/// Height of the drawing; it is stretched to whatever room there is, so that labels stay readable beside it at any width.
const HEIGHT: i64 = 1000;
/// Width of one bar's place.
const STEP: i64 = 100;
const BAR: i64 = 66;
/// A label under every sixth bar: they do not collide even on a telephone.
const LABEL_EVERY: usize = 6;

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
    #[prop(default = LABEL_EVERY)] label_every: usize,
) -> impl IntoView {
    let t = use_texts();
    let top = ceiling(points.iter().map(|point| point.value + point.faults).max().unwrap_or(0));
    let width = STEP * i64::try_from(points.len().max(1)).unwrap_or(1);
    let height_of = move |value: i64| (value.max(0) * HEIGHT) / top.max(1);
    let grid = [0, top / 2, top].map(|value| {
        let y = (HEIGHT - height_of(value)).to_string();
        view! { <line class="chart-grid" x1="0" x2=width.to_string() y1=y.clone() y2=y /> }
    });
    let bars = points
        .iter()
        .zip((0..).step_by(100))
        .map(|(point, start)| {
            let x = (start + (STEP - BAR) / 2).to_string();
            let faults = height_of(point.faults);
            let good = height_of(point.value);
            let tip = format!(
                "{}: {} {}, {} {}",
                point.label,
                group(point.value),
                value_name,
                group(point.faults),
                fault_name
            );
            view! {
                <g class="chart-column">
                    <title>{tip}</title>
                    <rect class="chart-hit" x=start.to_string() y="0" width=STEP.to_string() height=HEIGHT.to_string() />
                    <rect
                        class="chart-good"
                        x=x.clone()
                        y=(HEIGHT - good).to_string()
                        width=BAR.to_string()
                        height=good.to_string()
                    />
                    <rect
                        class="chart-fault"
                        x=x
                        y=(HEIGHT - good - faults).to_string()
                        width=BAR.to_string()
                        height=faults.to_string()
                    />
                </g>
            }
        })
        .collect_view();
    let below = points
        .iter()
        .step_by(label_every)
        .map(|point| view! { <span>{point.label.clone()}</span> })
        .collect_view();
    let label = format!("{title}. {summary}");
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
            <div class="chart-body">
                <div class="chart-y" aria-hidden="true">
                    <span>{group(top)}</span>
                    <span>{group(top / 2)}</span>
                    <span>"0"</span>
                </div>
                <svg
                    viewBox=format!("0 0 {width} {HEIGHT}")
                    preserveAspectRatio="none"
                    role="img"
                    aria-label=label
                >
                    <desc>{summary}</desc>
                    {grid.collect_view()}
                    {bars}
                </svg>
                <div class="chart-x" aria-hidden="true">
                    {below}
                </div>
            </div>
            <details class="chart-table">
                <summary>{t.chart_as_table}</summary>
                <table class="table">
                    <caption class="visually-hidden">{title}</caption>
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
        for step in [4, 6, 8, 10, 12, 16, 20, 30] {
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
            (5, 6),
            (11, 12),
            (21, 30),
            (99, 100),
            (101, 120),
            (1_000_001, 1_200_000),
        ] {
            assert_eq!(super::ceiling(value), top, "{value}");
        }
    }
}
