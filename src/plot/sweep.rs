//! The score against a swept number: a panel for each column, a line for each combination of whatever else is swept, and
//! a horizontal line, with its name, for each row that is not of the sweep.
//!
//! The vertical axis begins where the figures do: places are compared, not lengths. Rows far from everything else would
//! flatten the sweep, so they stand at the edge, with an arrow and their value.

use svg::node::element::Element;

use super::page::{GAP, HEADING, MARGIN, Page, about_whiskers, axis, faint, per_row, whisker, words};
use super::scale::{Range, Scale, number};
use super::series::{Chart, Point, Series};
use super::svg::{COLOURS, GREY, INK, PAPER, SMALL, Style, line, shape};
use crate::report::{Cell, Grid, Published, letter, mark};

/// Pixels left of a panel, for the numbers of its axis.
const LEFT: f64 = 46.0;
/// Pixels of the horizontal axis, and least of the vertical one.
const ACROSS: f64 = 220.0;
const DOWN: f64 = 180.0;
/// Most that the names of horizontal lines may take.
const WIDEST_LABEL: f64 = 184.0;
/// Height of such a name.
const LABEL: f64 = 13.0;
/// Under a panel: numbers of the axis and its name; then what is missing, if anything is.
const UNDER: f64 = 34.0;
const LACKING: f64 = 14.0;
/// How many times the height of the sweep others may take before they stand at the edge.
const REACH: f64 = 3.0;

/// The figure that a cell is drawn by: the measured one where there are two.
struct Shown {
    value: f64,
    error: f64,
    /// As the table prints it.
    text: String,
    /// The mark of a published one.
    mark: Option<String>,
}

fn shown(cell: &Cell) -> Option<Shown> {
    let (figure, mark) = match cell {
        Cell::Measured { figure, .. } => (figure, None),
        Cell::Published(Published { figure, origin }) => (figure, Some(mark(*origin))),
        Cell::Compared(_) | Cell::Missing(_) | Cell::Blank => return None,
    };
    let error = figure.spread.as_deref().and_then(number).unwrap_or(0.0);
    let text = mark.as_ref().map_or_else(|| figure.value.clone(), |mark| format!("{} {mark}", figure.value));
    Some(Shown { value: number(&figure.value)?, error, text, mark })
}

/// The picture.
pub(super) fn sweep(experiment: &str, grid: &Grid, chart: &Chart) -> String {
    let names = chart.others.iter().flat_map(|(row, _)| {
        grid.rows[*row]
            .cells
            .iter()
            .filter_map(|cell| Some(format!("↓ {} {}", grid.rows[*row].label, shown(cell)?.text)))
    });
    let labels = names.map(|name| Style::small().width(&name)).fold(40.0, f64::max).min(WIDEST_LABEL);
    let panel = LEFT + ACROSS + 12.0 + labels;
    let columns: Vec<usize> = (0..grid.columns.len()).collect();
    let in_a_row = per_row(columns.len(), 0.0, panel);
    let wide = in_a_row as f64;
    let mut page = Page::new(2.0 * MARGIN + wide * panel + (wide - 1.0) * GAP);

    page.legend(chart.series.iter().map(|series| series.label.as_str()), |i, x, y| {
        vec![line(x, y, x + 18.0, y, colour(i), 2.0), marker(i, x + 9.0, y, false)]
    });
    let down = DOWN.max(chart.others.len() as f64 * LABEL);
    for columns in columns.chunks(in_a_row) {
        let mut under = UNDER;
        for (i, column) in columns.iter().enumerate() {
            let left = MARGIN + i as f64 * (panel + GAP) + LEFT;
            page.heading(grid, *column, left, ACROSS + labels);
            let panel = Panel::new(grid, chart, *column, left, page.y + HEADING + 4.0, down, labels);
            panel.draw(&mut page);
            if panel.lacks().next().is_some() {
                under = UNDER + LACKING;
            }
        }
        page.y += HEADING + 4.0 + down + under + GAP;
    }
    if grid.columns.is_empty() {
        page.remark("the table has nothing to show");
    }
    page.finish(&format!("{experiment}, table {}: sweep over {}", grid.name, chart.key), grid, &notes(grid, chart))
}

/// What the lines under the picture say.
fn notes(grid: &Grid, chart: &Chart) -> Vec<(String, String)> {
    let mut notes = grid.sources();
    let mut explain = |mark: &str, text: &str| notes.push((mark.to_owned(), text.to_owned()));
    let points = || chart.series.iter().flat_map(|series| &series.points).map(|point| point.row);
    let others = || chart.others.iter().map(|(row, _)| *row);
    let of = |row: usize| grid.rows[row].cells.iter().filter_map(shown);
    if points().chain(others()).flat_map(of).any(|shown| shown.mark.is_some()) {
        explain("Dashed, hollow:", "published, not measured here");
    }
    let beyond = |column| {
        let range = vertical(grid, chart, column);
        move |row: usize| shown(&grid.rows[row].cells[column]).is_some_and(|shown| !range.contains(shown.value))
    };
    if (0..grid.columns.len()).any(|column| others().any(beyond(column))) {
        explain("↑ ↓", "beyond what the axis shows");
    }
    if points().flat_map(of).any(|shown| shown.error > 0.0) {
        notes.push(about_whiskers(grid));
    }
    notes
}

fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

/// The mark of a point: its form says which line it is of as well; hollow if it was published.
fn marker(series: usize, x: f64, y: f64, published: bool) -> Element {
    let r = 3.6;
    let inside = if published { PAPER } else { colour(series) };
    let words = [("fill", inside), ("stroke", colour(series)), ("stroke-width", "1.5")];
    let turned = |points: String| {
        let mut element = shape("polygon", &[], &words);
        svg::node::Node::assign(&mut element, "points", points);
        element
    };
    match series % 4 {
        0 => shape("circle", &[("cx", x), ("cy", y), ("r", r)], &words),
        1 => shape("rect", &[("x", x - r), ("y", y - r), ("width", 2.0 * r), ("height", 2.0 * r)], &words),
        2 => turned(corners([(x, y - r - 1.0), (x + r + 1.0, y + r), (x - r - 1.0, y + r)])),
        _ => turned(corners([(x, y - r - 1.0), (x + r + 1.0, y), (x, y + r + 1.0), (x - r - 1.0, y)])),
    }
}

/// Points of a polygon.
fn corners<const N: usize>(points: [(f64, f64); N]) -> String {
    points.map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ")
}

/// The name of a horizontal line.
struct Name {
    /// Where the line is, or the edge of the panel that it is beyond.
    y: f64,
    beyond: bool,
    label: String,
    value: String,
}

/// One column.
struct Panel<'a> {
    grid: &'a Grid,
    chart: &'a Chart,
    column: usize,
    left: f64,
    top: f64,
    bottom: f64,
    labels: f64,
    x: Scale,
    range: Range,
    y: Scale,
}

impl<'a> Panel<'a> {
    fn new(grid: &'a Grid, chart: &'a Chart, column: usize, left: f64, top: f64, down: f64, labels: f64) -> Self {
        let bottom = top + down;
        let range = vertical(grid, chart, column);
        let y = Scale::linear(range, bottom, top);
        Self { grid, chart, column, left, top, bottom, labels, x: horizontal(chart, left), range, y }
    }

    fn cell(&self, row: usize) -> &'a Cell {
        &self.grid.rows[row].cells[self.column]
    }

    fn draw(&self, page: &mut Page) {
        self.axes(page);
        self.others(page);
        let several = self.chart.series.len() as f64;
        for (i, series) in self.chart.series.iter().enumerate() {
            // Whiskers of several lines at one value would hide each other.
            self.line(page, i, series, (i as f64 - (several - 1.0) / 2.0) * 3.0);
        }
        self.missing(page);
    }

    fn axes(&self, page: &mut Page) {
        let right = self.left + ACROSS;
        for (mark, text) in self.range.ticks(5) {
            let y = self.y.at(mark);
            page.draw(faint(self.left, y, right, y));
            page.draw(Style::remark().end().write(self.left - 6.0, y + 3.5, &text, LEFT - 6.0));
        }
        page.draw(axis(self.left, self.bottom, right, self.bottom));
        page.draw(axis(self.left, self.top, self.left, self.bottom));
        let mut points: Vec<&Point> = self.chart.series.iter().flat_map(|series| &series.points).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut free = f64::MIN;
        for point in points {
            let (x, half) = (self.x.at(point.x), Style::remark().width(&point.spelling) / 2.0);
            if x - half >= free {
                page.draw(axis(x, self.bottom, x, self.bottom + 3.0));
                page.draw(Style::remark().middle().write(x, self.bottom + SMALL + 5.0, &point.spelling, ACROSS));
                free = x + half + 3.0;
            }
        }
        let how = if is_logarithmic(self.chart) { " (logarithmic)" } else { "" };
        let text = format!("{}{how}", self.chart.key);
        page.draw(Style::small().middle().write(self.left + ACROSS / 2.0, self.bottom + 31.0, &text, ACROSS));
    }

    /// One line of the sweep; `aside` is how many pixels it is moved.
    fn line(&self, page: &mut Page, i: usize, series: &Series, aside: f64) {
        let points: Vec<_> = series
            .points
            .iter()
            .map(|point| (point, shown(self.cell(point.row)), self.x.at(point.x) + aside))
            .collect();
        for pair in points.windows(2) {
            if let [(_, Some(a), from), (_, Some(b), to)] = pair {
                let mut between = line(*from, self.y.at(a.value), *to, self.y.at(b.value), colour(i), 2.0);
                if a.mark.is_some() || b.mark.is_some() {
                    svg::node::Node::assign(&mut between, "stroke-dasharray", DASHED);
                }
                page.draw(between);
            }
        }
        for (point, shown, x) in &points {
            let Some(shown) = shown else { continue };
            if shown.error > 0.0 {
                let ends = (self.y.at(shown.value - shown.error), self.y.at(shown.value + shown.error));
                page.draw_all(whisker(true, *x, ends.0, ends.1));
            }
            let mut mark = marker(i, *x, self.y.at(shown.value), shown.mark.is_some());
            let said = format!("{}: {}", self.grid.rows[point.row].label, words(self.cell(point.row), self.grid));
            svg::node::Node::append(&mut mark, super::svg::said("title", &said));
            page.draw(mark);
            if let Some(sign) = &shown.mark {
                page.draw(Style::small().write(x + 6.0, self.y.at(shown.value) - 4.0, sign, 30.0));
            }
        }
    }

    /// The rows that are not of the sweep: their lines, and the names beside them, none over another.
    fn others(&self, page: &mut Page) {
        let right = self.left + ACROSS;
        let mut names: Vec<Name> = Vec::new();
        for (row, merge) in &self.chart.others {
            let Some(shown) = shown(self.cell(*row)) else { continue };
            let (label, value) = (&self.grid.rows[*row].label, format!(" {}", shown.text));
            let y = self.y.at(shown.value);
            if self.range.contains(shown.value) {
                let mut across = line(self.left, y, right, y, if *merge { INK } else { GREY }, 1.2);
                if shown.mark.is_some() {
                    svg::node::Node::assign(&mut across, "stroke-dasharray", DASHED);
                }
                page.draw(across);
                names.push(Name { y, beyond: false, label: label.clone(), value });
            } else {
                let (y, arrow) = if shown.value > self.range.high { (self.top, "↑") } else { (self.bottom, "↓") };
                names.push(Name { y, beyond: true, label: format!("{arrow} {label}"), value });
            }
        }
        names.sort_by(|a, b| a.y.total_cmp(&b.y));
        let places = apart(&names.iter().map(|name| name.y).collect::<Vec<_>>(), self.top, self.bottom);
        for (Name { y, beyond, label, value }, place) in names.iter().zip(places) {
            if !beyond {
                page.draw(line(right, *y, right + 10.0, place, GREY, 0.8));
            }
            page.draw(Style::small().write_whole_end(right + 12.0, place + 3.5, label, value, self.labels));
        }
    }

    /// What it has no figure of, each with the mark of the reason.
    fn lacks(&self) -> impl Iterator<Item = String> {
        let points = self.chart.series.iter().flat_map(|series| &series.points).map(|point| point.row);
        points.chain(self.chart.others.iter().map(|(row, _)| *row)).filter_map(|row| match self.cell(row) {
            Cell::Missing(reason) => Some(format!("{} {}", self.grid.rows[row].label, letter(*reason))),
            _ => None,
        })
    }

    /// Says under the panel what it lacks.
    fn missing(&self, page: &mut Page) {
        let lacks: Vec<_> = self.lacks().collect();
        if !lacks.is_empty() {
            let text = format!("— {}", lacks.join(", "));
            page.draw(Style::remark().write(self.left, self.bottom + UNDER + LACKING, &text, ACROSS + self.labels));
        }
    }
}

/// Dashes of what was published.
const DASHED: &str = "4 3";

/// Whether the values span so many powers of ten that the small ones would fall together.
fn is_logarithmic(chart: &Chart) -> bool {
    let range = Range::of(chart.series.iter().flat_map(|series| &series.points).map(|point| point.x));
    range.is_some_and(|range| range.low > 0.0 && range.high / range.low >= 50.0)
}

fn horizontal(chart: &Chart, left: f64) -> Scale {
    let range = Range::of(chart.series.iter().flat_map(|series| &series.points).map(|point| point.x));
    let range = range.unwrap_or(Range { low: 0.0, high: 1.0 });
    let (from, to) = (left + 16.0, left + ACROSS - 16.0);
    if is_logarithmic(chart) { Scale::logarithmic(range, from, to) } else { Scale::linear(range, from, to) }
}

/// The numbers that a panel shows: the sweep with its errors and the other merges, and of the other rows those near it.
fn vertical(grid: &Grid, chart: &Chart, column: usize) -> Range {
    let cell = |row: usize| shown(&grid.rows[row].cells[column]);
    let points = chart.series.iter().flat_map(|series| &series.points).filter_map(|point| cell(point.row));
    let ends = points.flat_map(|shown| [shown.value - shown.error, shown.value + shown.error]);
    let merges = chart.others.iter().filter(|(_, merge)| *merge).filter_map(|(row, _)| Some(cell(*row)?.value));
    let all = || chart.others.iter().filter_map(|(row, _)| Some(cell(*row)?.value));
    let core = Range::of(ends.chain(merges)).or_else(|| Range::of(all())).unwrap_or(Range { low: 0.0, high: 1.0 });
    let most = REACH * core.span();
    let mut near: Vec<f64> = all().collect();
    let away = |number: f64| (core.low - number).max(number - core.high).max(0.0);
    near.sort_by(|a, b| away(*a).total_cmp(&away(*b)));
    let range = near.into_iter().fold(core, |range, number| {
        let wider = range.with(number);
        if wider.span() <= most { wider } else { range }
    });
    range.padded(0.06)
}

/// Sorted places moved so that each is [`LABEL`] from the next, within `top` and `bottom` as far as there is room.
fn apart(wanted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut places: Vec<f64> = Vec::with_capacity(wanted.len());
    for place in wanted {
        places.push(places.last().map_or(*place, |last| place.max(last + LABEL)));
    }
    let mut least = bottom;
    for place in places.iter_mut().rev() {
        *place = place.min(least);
        least = *place - LABEL;
    }
    let over = places.first().map_or(0.0, |first| (top - first).max(0.0));
    places.into_iter().map(|place| place + over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_apart_and_within_the_panel() {
        let close = |a: &[f64], b: &[f64]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9), "{a:?}");
        close(&apart(&[10.0, 50.0, 90.0], 0.0, 100.0), &[10.0, 50.0, 90.0]);
        close(&apart(&[10.0, 12.0, 14.0], 0.0, 100.0), &[10.0, 23.0, 36.0]);
        close(&apart(&[95.0, 96.0, 100.0], 0.0, 100.0), &[74.0, 87.0, 100.0]);
        assert!(apart(&[], 0.0, 100.0).is_empty());
    }
}
