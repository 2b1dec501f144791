//! A table as bars: a panel for each column, a bar for each row, and the value as the table prints it.
//!
//! Bars begin at 0: their lengths are compared. A row whose figure was measured and published has two.

use super::page::{self, GAP, HEADING, MARGIN, Page, about_whiskers, axis, faint, hatching, per_row, whisker};
use super::scale::{Range, Scale, number};
use super::svg::{SMALL, Style};
use crate::report::{Cell, Figure, Grid, Published, mark, missing};

/// Pixels of the axis.
const AXIS: f64 = 160.0;
/// Most that row labels may take, and what they are held to where only one panel would have room beside them.
const WIDEST_LABEL: f64 = 300.0;
const NARROW_LABEL: f64 = 230.0;
/// Most that values may take.
const WIDEST_VALUE: f64 = 172.0;
/// Height of a bar's own line, and of the room between rows.
const SLOT: f64 = 15.0;
const BETWEEN: f64 = 7.0;

/// One bar, or the word for a missing one.
struct Bar<'a> {
    figure: Option<&'a Figure>,
    /// The place of the reason why there is none.
    missing: Option<usize>,
    published: bool,
    best: bool,
    text: String,
    /// What follows the text, and is never cut: the mark of a published figure, or of one that a test tells from the baseline.
    end: String,
}

impl<'a> Bar<'a> {
    fn measured(figure: &'a Figure, best: bool, arrow: Option<char>) -> Self {
        let end = arrow.map_or_else(String::new, |arrow| format!(" {arrow}"));
        Self { figure: Some(figure), missing: None, published: false, best, text: figure.to_string(), end }
    }

    fn published(Published { figure, origin }: &'a Published, difference: Option<&str>) -> Self {
        let difference = difference.map_or_else(String::new, |apart| format!(" ({apart} SE)"));
        let end = format!(" {}{difference}", mark(*origin));
        Self { figure: Some(figure), missing: None, published: true, best: false, text: figure.to_string(), end }
    }

    fn missing(reason: usize) -> Self {
        let text = missing(reason);
        Self { figure: None, missing: Some(reason), published: false, best: false, text, end: String::new() }
    }

    /// How wide its value is.
    fn width(&self) -> f64 {
        Style::small().bold(self.best).width(&format!("{}{}", self.text, self.end))
    }

    /// Where the bar ends, and its standard error.
    fn reach(&self) -> Option<(f64, f64)> {
        let figure = self.figure?;
        Some((number(&figure.value)?, figure.spread.as_deref().and_then(number).unwrap_or(0.0)))
    }
}

/// The bars of a cell, one under the other.
fn bars_of(cell: &Cell) -> Vec<Bar<'_>> {
    match cell {
        Cell::Measured { figure, best, beside, difference, .. } => {
            let beside = beside.as_ref().map(|beside| Bar::published(beside, difference.as_deref()));
            std::iter::once(Bar::measured(figure, *best, cell.arrow())).chain(beside).collect()
        }
        Cell::Published(published) => vec![Bar::published(published, None)],
        Cell::Missing(reason) => vec![Bar::missing(*reason)],
        Cell::Compared(_) | Cell::Blank => Vec::new(),
    }
}

/// The picture.
pub(super) fn bars(experiment: &str, grid: &Grid) -> String {
    let widest = |texts: &mut dyn Iterator<Item = f64>, most: f64| texts.fold(40.0, f64::max).min(most);
    let labels = widest(&mut grid.rows.iter().map(|row| Style::body().width(&row.label)), WIDEST_LABEL);
    let all = || grid.rows.iter().flat_map(|row| &row.cells).flat_map(bars_of);
    let values = widest(&mut all().map(|bar| bar.width()), WIDEST_VALUE);
    let panel = AXIS + 10.0 + values;
    let labels = if per_row(2, labels + 10.0, panel) == 1 { labels.min(NARROW_LABEL) } else { labels };
    let gutter = labels + 10.0;
    let columns: Vec<usize> = (0..grid.columns.len()).collect();
    let in_a_row = per_row(columns.len(), gutter, panel);
    let wide = in_a_row as f64;
    let mut page = Page::new(2.0 * MARGIN + gutter + wide * panel + (wide - 1.0) * GAP);

    if all().any(|bar| bar.published) {
        page.draw(hatching());
        let kinds = [(false, "measured"), (true, "published, not measured here")];
        let there: Vec<_> = kinds
            .into_iter()
            .filter(|(published, _)| all().any(|bar| bar.figure.is_some() && bar.published == *published))
            .collect();
        page.legend(there.iter().map(|kind| kind.1), |i, x, y| vec![page::bar(x, y - 5.0, 18.0, 10.0, there[i].0)]);
    }
    for columns in columns.chunks(in_a_row) {
        row_of_panels(&mut page, grid, columns, gutter, values);
    }
    if grid.rows.is_empty() || grid.columns.is_empty() {
        page.remark("the table has nothing to show");
    }
    let mut notes = grid.notes();
    if all().any(|bar| bar.reach().is_some_and(|(_, error)| error > 0.0)) {
        notes.push(about_whiskers(grid));
    }
    page.finish(&format!("{experiment}, table {}: bars", grid.name), grid, &notes)
}

/// Panels side by side; they share the labels of the rows.
fn row_of_panels(page: &mut Page, grid: &Grid, columns: &[usize], gutter: f64, values: f64) {
    let top = page.y + HEADING;
    let heights: Vec<f64> = (grid.rows.iter())
        .map(|row| columns.iter().map(|column| bars_of(&row.cells[*column]).len()).max().unwrap_or(1))
        .map(|slots| slots as f64 * SLOT + BETWEEN)
        .collect();
    let bottom = top + heights.iter().sum::<f64>();
    for (i, column) in columns.iter().enumerate() {
        let left = MARGIN + gutter + i as f64 * (AXIS + 10.0 + values + GAP);
        page.heading(grid, *column, left, AXIS + 10.0 + values);
        let panel = Panel { left, values, scale: ruled(page, grid, *column, left, top, bottom) };
        let mut y = top;
        for (row, height) in grid.rows.iter().zip(&heights) {
            let bars = bars_of(&row.cells[*column]);
            let first = y + (height - bars.len() as f64 * SLOT) / 2.0;
            for (i, bar) in bars.iter().enumerate() {
                panel.draw(page, grid, bar, first + (i as f64 + 0.5) * SLOT);
            }
            y += height;
        }
    }
    let mut y = top;
    for (row, height) in grid.rows.iter().zip(&heights) {
        let room = gutter - 10.0;
        page.draw(Style::body().end().write(MARGIN + room, y + height / 2.0 + 4.0, &row.label, room));
        y += height;
    }
    page.y = bottom + 16.0 + GAP;
}

/// The axis of a panel.
fn ruled(page: &mut Page, grid: &Grid, column: usize, left: f64, top: f64, bottom: f64) -> Scale {
    let reaches = grid.rows.iter().flat_map(|row| bars_of(&row.cells[column])).filter_map(|bar| bar.reach());
    let ends = reaches.flat_map(|(value, error)| [value - error, value, value + error]);
    let range =
        Range::of(ends.chain([0.0])).filter(|range| range.span() > 0.0).unwrap_or(Range { low: 0.0, high: 1.0 });
    let range = range.to_next_mark(4, 0.12);
    let scale = Scale::linear(range, left, left + AXIS);
    for (mark, text) in range.ticks(4) {
        let x = scale.at(mark);
        page.draw(faint(x, top, x, bottom));
        page.draw(Style::remark().middle().write(x, bottom + SMALL + 3.0, &text, AXIS));
    }
    page.draw(axis(scale.at(0.0), top, scale.at(0.0), bottom));
    scale
}

/// Where the bars of a column are drawn: their axis, and right of it as many pixels for the values.
struct Panel {
    left: f64,
    values: f64,
    scale: Scale,
}

impl Panel {
    /// One bar with its value, or why there is none; `y` is its middle.
    fn draw(&self, page: &mut Page, grid: &Grid, bar: &Bar<'_>, y: f64) {
        if let Some((value, error)) = bar.reach() {
            let (zero, end) = (self.scale.at(0.0), self.scale.at(value));
            page.draw(page::bar(zero.min(end), y - 5.5, (end - zero).abs(), 11.0, bar.published));
            if error > 0.0 {
                page.draw_all(whisker(false, y, self.scale.at(value - error), self.scale.at(value + error)));
            }
        } else if let Some(reason) = bar.missing {
            let x = self.scale.at(0.0);
            page.draw(Style::remark().write(x + 4.0, y + 4.0, &grid.reasons[reason], self.left + AXIS - x - 4.0));
        }
        let right = self.left + AXIS + 10.0 + self.values;
        let style = Style::small().bold(bar.best).end();
        page.draw(style.write_whole_end(right, y + 4.0, &bar.text, &bar.end, self.values));
    }
}
