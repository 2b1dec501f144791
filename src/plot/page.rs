//! The page: panels in rows, and under them what explains them.

use svg::node::Node as _;
use svg::node::element::Element;

use super::measure;
use super::svg::{BODY, GREY, INK, MEASURED, PAPER, PUBLISHED, SMALL, Style, line, said, shape};
use crate::report::{Cell, Grid, aside, quoted};

/// Room around everything.
pub(super) const MARGIN: f64 = 16.0;
/// Room between panels.
pub(super) const GAP: f64 = 24.0;
/// What a page should not be wider than: a README shows about as much.
pub(super) const WIDEST: f64 = 980.0;
/// Height of a panel's heading.
pub(super) const HEADING: f64 = 38.0;
/// Name of the hatching of published bars.
pub(super) const HATCHED: &str = "url(#published)";

const LINE: f64 = 15.0;

/// How many panels stand in a row: as many as there is room for, and then as even as can be.
pub(super) fn per_row(panels: usize, gutter: f64, panel: f64) -> usize {
    let room = ((WIDEST - 2.0 * MARGIN - gutter + GAP) / (panel + GAP)).floor().max(1.0) as usize;
    panels.max(1).div_ceil(panels.max(1).div_ceil(room))
}

/// A page that grows downwards.
pub(super) struct Page {
    pub(super) width: f64,
    /// Where the next thing goes.
    pub(super) y: f64,
    drawn: Vec<Element>,
}

impl Page {
    pub(super) fn new(width: f64) -> Self {
        Self { width, y: MARGIN, drawn: Vec::new() }
    }

    pub(super) fn draw(&mut self, element: Element) {
        self.drawn.push(element);
    }

    pub(super) fn draw_all(&mut self, elements: impl IntoIterator<Item = Element>) {
        self.drawn.extend(elements);
    }

    /// A column's label and note over a panel.
    pub(super) fn heading(&mut self, grid: &Grid, column: usize, x: f64, room: f64) {
        let heading = &grid.columns[column];
        self.draw(Style::body().bold(true).write(x, self.y + BODY, &heading.label, room));
        if let Some(note) = &heading.note {
            self.draw(Style::remark().write(x, self.y + BODY + LINE, note, room));
        }
    }

    /// A remark of its own where panels would stand.
    pub(super) fn remark(&mut self, text: &str) {
        self.y += SMALL;
        let room = self.width - 2.0 * MARGIN;
        self.draw(Style::remark().write(MARGIN, self.y, text, room));
        self.y += LINE;
    }

    /// Pieces of a legend side by side: each is drawn by `draw` at a place on the middle of the line, and takes 18 pixels.
    pub(super) fn legend<'t>(
        &mut self,
        pieces: impl IntoIterator<Item = &'t str>,
        mut draw: impl FnMut(usize, f64, f64) -> Vec<Element>,
    ) {
        let mut x = MARGIN;
        for (i, label) in pieces.into_iter().enumerate() {
            let room = self.width - 2.0 * MARGIN - 24.0;
            let wide = Style::small().width(label).min(room) + 24.0;
            if x > MARGIN && x + wide > self.width - MARGIN {
                (x, self.y) = (MARGIN, self.y + LINE + 2.0);
            }
            self.draw_all(draw(i, x, self.y + 6.0));
            self.draw(Style::small().write(x + 24.0, self.y + 10.0, label, room));
            x += wide + GAP;
        }
        self.y += LINE + 6.0;
    }

    /// The finished file of a table's picture, with the notes, each behind its mark.
    pub(super) fn finish(self, title: &str, grid: &Grid, notes: &[(String, String)]) -> String {
        self.finish_described(title, &described(grid), notes)
    }

    /// The notes, each behind its mark, and the finished file; `description` says in words what is seen.
    pub(super) fn finish_described(mut self, title: &str, description: &str, notes: &[(String, String)]) -> String {
        let room = self.width - 2.0 * MARGIN;
        for (mark, note) in notes {
            for line in measure::wrap(&format!("{mark} {note}"), SMALL, room) {
                self.y += LINE;
                self.draw(Style::remark().write(MARGIN, self.y - 4.0, &line, room));
            }
        }
        let (width, height) = (self.width.ceil(), (self.y + MARGIN).ceil());
        let mut svg = shape(
            "svg",
            &[("width", width), ("height", height)],
            &[("xmlns", "http://www.w3.org/2000/svg"), ("role", "img"), ("font-family", "sans-serif")],
        );
        svg.assign("viewBox", format!("0 0 {width} {height}"));
        svg.append(said("title", title));
        svg.append(said("desc", description));
        let whole = [("width", width), ("height", height), ("rx", 6.0)];
        svg.append(shape("rect", &whole, &[("fill", PAPER)]));
        for element in self.drawn {
            svg.append(element);
        }
        format!("{svg}\n")
    }
}

/// The figures in words, column by column, for who cannot see the picture.
fn described(grid: &Grid) -> String {
    let columns = grid.columns.iter().enumerate().map(|(i, column)| {
        let note = column.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
        let rows = grid.rows.iter().map(|row| format!("{}: {}", row.label, words(&row.cells[i], grid)));
        format!("{}{note}. {}.", column.label, rows.collect::<Vec<_>>().join("; "))
    });
    columns.collect::<Vec<_>>().join(" ")
}

/// A cell as its row reads it.
pub(super) fn words(cell: &Cell, grid: &Grid) -> String {
    match cell {
        Cell::Measured { figure, beside, difference, .. } => {
            format!("{figure}{}", aside(beside.as_ref(), difference.as_deref()))
        }
        Cell::Published(published) => quoted(published),
        Cell::Compared(compared) => compared.to_string(),
        Cell::Missing(reason) => grid.reasons[*reason].clone(),
        Cell::Blank => String::new(),
    }
}

/// The pattern that [`HATCHED`] names.
pub(super) fn hatching() -> Element {
    let tile = [("width", 5.0), ("height", 5.0)];
    let words = [("id", "published"), ("patternUnits", "userSpaceOnUse"), ("patternTransform", "rotate(45)")];
    let mut pattern = shape("pattern", &tile, &words);
    pattern.append(shape("rect", &tile, &[("fill", PAPER)]));
    pattern.append(line(0.0, 0.0, 0.0, 5.0, PUBLISHED, 2.5));
    let mut definitions = Element::new("defs");
    definitions.append(pattern);
    definitions
}

/// A bar of what was measured, or hatched for what was published.
pub(super) fn bar(x: f64, y: f64, width: f64, height: f64, published: bool) -> Element {
    let numbers = [("x", x), ("y", y), ("width", width), ("height", height)];
    if published {
        shape("rect", &numbers, &[("fill", HATCHED), ("stroke", PUBLISHED)])
    } else {
        shape("rect", &numbers, &[("fill", MEASURED)])
    }
}

/// One standard error to each side, with caps; `upright` for values on the vertical axis.
pub(super) fn whisker(upright: bool, along: f64, from: f64, to: f64) -> Vec<Element> {
    let cap = 3.0;
    let place = |a: f64, b: f64, c: f64, d: f64| {
        if upright { line(b, a, d, c, INK, 1.2) } else { line(a, b, c, d, INK, 1.2) }
    };
    vec![
        place(from, along, to, along),
        place(from, along - cap, from, along + cap),
        place(to, along - cap, to, along + cap),
    ]
}

/// What whiskers are, as a note.
pub(super) fn about_whiskers(grid: &Grid) -> (String, String) {
    let mut cells = grid.rows.iter().flat_map(|row| &row.cells);
    let replicated = cells.any(|cell| matches!(cell, Cell::Measured { figure, .. } if figure.replicates.is_some()));
    let about = "one standard error to each side";
    let of_replicates = if replicated { ", of replicates one standard deviation" } else { "" };
    ("Whiskers:".to_owned(), format!("{about}{of_replicates}"))
}

/// A line of an axis' grid.
pub(super) fn faint(x1: f64, y1: f64, x2: f64, y2: f64) -> Element {
    line(x1, y1, x2, y2, super::svg::FAINT, 1.0)
}

/// An axis itself.
pub(super) fn axis(x1: f64, y1: f64, x2: f64, y2: f64) -> Element {
    line(x1, y1, x2, y2, GREY, 1.0)
}
