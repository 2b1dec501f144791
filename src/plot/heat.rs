//! Heat maps: a figure of every layer and kind of tensor, dark where it is large.
//!
//! Lightness alone says how large, so that it reads in grey too; the number stands in the cell where there is room, and under
//! the pointer everywhere.

use indexmap::IndexMap;
use svg::node::Node as _;
use svg::node::element::Element;

use super::page::{GAP, MARGIN, Page, WIDEST};
use super::scale::{LARGEST, Range};
use super::svg::{BODY, COLOURS, FAINT, GREY, INK, PAPER, SMALL, Style, line, said, shape};

/// Height of a row of cells.
const HIGH: f64 = 16.0;
/// Width of a cell: at least, and at most.
const NARROW: f64 = 9.0;
const WIDE: f64 = 52.0;
/// Most that labels of rows may take.
const LABELS: f64 = 260.0;
/// Width of the bar that says what colours mean, and how many pieces it has.
const KEY: f64 = 120.0;
const STEPS: usize = 24;
/// From light to dark.
const SHADES: [[u8; 3]; 4] = [[0xE9, 0xF2, 0xFA], [0x8C, 0xC0, 0xE6], [0x00, 0x72, 0xB2], [0x06, 0x24, 0x3F]];

/// From which shade on white text reads better than black.
const DARK: f64 = 0.58;

/// One map.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// What is shown.
    pub(super) heading: String,
    /// What that is.
    pub(super) note: String,
    /// Labels of the rows.
    pub(super) rows: Vec<String>,
    /// Labels of the columns.
    pub(super) columns: Vec<String>,
    /// Row by row.
    pub(super) cells: Cells,
}

/// What stands in the cells.
#[derive(Clone, Debug)]
pub(super) enum Cells {
    /// Numbers, each with its print.
    Numbers(Vec<Vec<Option<f64>>>),
    /// One of a few words.
    Words(Vec<Vec<Option<String>>>),
}

/// A number as cells and their titles show it.
pub(super) fn print(number: f64) -> String {
    match number.abs() {
        size if size < 1e4 && size.fract() == 0.0 => format!("{}", number as i64),
        size if !(1e-3..1e4).contains(&size) => format!("{number:.1e}"),
        size if size < 1.0 => format!("{number:.3}"),
        size if size < 100.0 => format!("{number:.2}"),
        _ => format!("{number:.0}"),
    }
}

/// Cells of kinds and layers as a table: rows and columns in the order in which they come first.
pub(super) fn table<T>(cells: Vec<(String, String, Option<T>)>) -> (Vec<String>, Vec<String>, Vec<Vec<Option<T>>>) {
    let mut rows: IndexMap<String, IndexMap<String, Option<T>>> = IndexMap::new();
    let mut columns: IndexMap<String, ()> = IndexMap::new();
    for (row, column, cell) in cells {
        columns.insert(column.clone(), ());
        rows.entry(row).or_default().insert(column, cell);
    }
    let columns: Vec<String> = columns.into_keys().collect();
    let (labels, mut rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let cells =
        rows.iter_mut().map(|row| columns.iter().map(|column| row.get_mut(column).and_then(Option::take)).collect());
    let cells = cells.collect();
    (labels, columns, cells)
}

/// The picture of some maps, one under the other.
pub(super) fn heat(title: &str, panels: &[Panel], notes: &[(String, String)]) -> String {
    let widest = |panel: &Panel| panel.rows.iter().map(|row| Style::body().width(row)).fold(40.0, f64::max);
    let labels = panels.iter().map(widest).fold(0.0, f64::max).min(LABELS) + 8.0;
    let most = panels.iter().map(|panel| panel.columns.len()).max().unwrap_or(0).max(1) as f64;
    let cell = ((WIDEST - 2.0 * MARGIN - labels) / most).clamp(NARROW, WIDE);
    let mut page = Page::new((2.0 * MARGIN + labels + cell * most).max(660.0));
    page.y += BODY;
    page.draw(Style::body().bold(true).write(MARGIN, page.y, title, page.width - 2.0 * MARGIN));
    page.y += GAP;
    for panel in panels {
        Drawn { panel, left: MARGIN + labels, cell }.draw(&mut page);
    }
    if panels.is_empty() {
        page.remark("there is nothing to show");
    }
    let described = panels.iter().map(described).collect::<Vec<_>>().join(" ");
    page.finish_described(title, &described, notes)
}

/// A map in words: what it shows, and its ends.
fn described(panel: &Panel) -> String {
    let ends = match &panel.cells {
        Cells::Numbers(rows) => {
            let named = rows.iter().enumerate().flat_map(|(row, cells)| {
                cells.iter().enumerate().filter_map(move |(column, cell)| Some((row, column, (*cell)?)))
            });
            let at = |(row, column, number): (usize, usize, f64)| {
                format!("{} at {} {}", print(number), panel.rows[row], panel.columns[column])
            };
            let least = named.clone().min_by(|a, b| a.2.total_cmp(&b.2));
            let most = named.max_by(|a, b| a.2.total_cmp(&b.2));
            match least.zip(most) {
                Some((least, most)) => format!("from {} to {}", at(least), at(most)),
                None => "no number".to_owned(),
            }
        }
        Cells::Words(rows) => {
            words(rows).into_iter().map(|(word, count)| format!("{word}: {count}")).collect::<Vec<_>>().join(", ")
        }
    };
    format!("{}: {}, {} rows by {} columns; {ends}.", panel.heading, panel.note, panel.rows.len(), panel.columns.len())
}

/// The words, each once, with how often it stands, in the order of the alphabet.
fn words(rows: &[Vec<Option<String>>]) -> Vec<(&str, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for word in rows.iter().flatten().flatten() {
        *counts.entry(word.as_str()).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// From numbers to shades.
#[derive(Clone, Copy, Debug)]
struct Shading {
    range: Range,
    logarithmic: bool,
}

impl Shading {
    /// On a logarithmic scale where numbers above 0 span much, as condition numbers do; those that are 0 are then paper.
    fn of(rows: &[Vec<Option<f64>>]) -> Option<Self> {
        let all = || rows.iter().flatten().flatten().copied();
        let positive = Range::of(all().filter(|number| *number > 0.0));
        let logarithmic =
            all().all(|number| number >= 0.0) && positive.is_some_and(|range| range.high / range.low >= 50.0);
        let range = if logarithmic { positive } else { Range::of(all()) };
        Some(Self { range: range?, logarithmic })
    }

    /// How dark, from 0 to 1; nothing for a zero on a logarithmic scale.
    fn share(self, number: f64) -> Option<f64> {
        let Range { low, high } = self.range;
        let (number, low, high) = match self.logarithmic {
            true if number <= 0.0 => return None,
            true => (number.ln(), low.ln(), high.ln()),
            false => (number, low, high),
        };
        Some(if high > low { ((number - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 })
    }

    /// The number that is so dark.
    fn number(self, share: f64) -> f64 {
        let Range { low, high } = self.range;
        if self.logarithmic { (low.ln() + share * (high.ln() - low.ln())).exp() } else { low + share * (high - low) }
    }
}

fn shade(share: f64) -> String {
    let place = share.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64;
    let from = (place.floor() as usize).min(SHADES.len() - 2);
    let rest = place - from as f64;
    let mixed = [0, 1, 2].map(|part| {
        let (a, b) = (f64::from(SHADES[from][part]), f64::from(SHADES[from + 1][part]));
        (a + rest * (b - a)).round() as u8
    });
    format!("#{:02X}{:02X}{:02X}", mixed[0], mixed[1], mixed[2])
}

/// What is seen of a cell.
struct Look {
    fill: String,
    /// What the pointer shows.
    text: String,
    /// What stands in the cell, where it has room.
    mark: String,
    /// The colour of that.
    ink: &'static str,
}

/// A map on its page.
struct Drawn<'a> {
    panel: &'a Panel,
    left: f64,
    cell: f64,
}

impl Drawn<'_> {
    fn draw(&self, page: &mut Page) {
        let room = page.width - 2.0 * MARGIN - KEY - 140.0;
        page.draw(Style::body().bold(true).write(MARGIN, page.y + BODY, &self.panel.heading, room));
        page.draw(Style::remark().write(MARGIN, page.y + BODY + 15.0, &self.panel.note, page.width - 2.0 * MARGIN));
        match &self.panel.cells {
            Cells::Numbers(rows) => {
                let shading = Shading::of(rows);
                if let Some(shading) = shading.filter(|shading| shading.range.span() > 0.0) {
                    key(page, shading);
                }
                page.y += 34.0;
                self.cells(page, rows, |number| {
                    let share = shading.and_then(|shading| shading.share(*number));
                    let ink = if share.is_some_and(|share| share > DARK) { PAPER } else { INK };
                    let text = print(*number);
                    Look { fill: share.map_or_else(|| PAPER.to_owned(), shade), mark: text.clone(), text, ink }
                });
            }
            Cells::Words(rows) => {
                page.y += 36.0;
                // A letter beside the colour, for who sees none.
                let all: Vec<&str> = words(rows).into_iter().map(|(word, _)| word).collect();
                let letter = |at: usize| char::from(b'a' + (at % 26) as u8);
                let labels: Vec<String> = (0..).zip(&all).map(|(at, word)| format!("{} {word}", letter(at))).collect();
                let colour = |at: usize| COLOURS[at % COLOURS.len()];
                page.legend(labels.iter().map(String::as_str), |at, x, y| {
                    vec![shape(
                        "rect",
                        &[("x", x), ("y", y - 5.0), ("width", 18.0), ("height", 10.0)],
                        &[("fill", colour(at))],
                    )]
                });
                self.cells(page, rows, |word| {
                    let at = all.iter().position(|known| known == word).unwrap_or_default();
                    let ink = if at % COLOURS.len() < 3 { PAPER } else { INK };
                    Look { fill: colour(at).to_owned(), mark: letter(at).to_string(), text: word.clone(), ink }
                });
            }
        }
        page.y += GAP;
    }

    /// Cells, labels of rows and of columns.
    fn cells<T>(&self, page: &mut Page, rows: &[Vec<Option<T>>], look: impl Fn(&T) -> Look) {
        // In all of a map or in none: gaps would look like something that the numbers say.
        let wide = |cell: &T| Style::small().width(&look(cell).mark);
        let has_room = rows.iter().flatten().flatten().all(|cell| wide(cell) <= self.cell);
        for (label, cells) in self.panel.rows.iter().zip(rows) {
            page.draw(Style::body().end().write(self.left - 8.0, page.y + 12.0, label, self.left - 8.0 - MARGIN));
            for (place, (column, cell)) in self.panel.columns.iter().zip(cells).enumerate() {
                let x = self.left + place as f64 * self.cell;
                let (middle, half) = (x + self.cell / 2.0, page.y + HIGH / 2.0);
                let Some(Look { fill, text, mark, ink }) = cell.as_ref().map(&look) else {
                    page.draw(self.rectangle(x, page.y, PAPER, &format!("{label}, {column}: no value")));
                    page.draw(line(middle - 3.0, half, middle + 3.0, half, GREY, 1.0));
                    continue;
                };
                page.draw(self.rectangle(x, page.y, &fill, &format!("{label}, {column}: {text}")));
                let small = Style::small().middle().coloured(ink);
                if has_room {
                    page.draw(small.write(middle, page.y + 11.5, &mark, self.cell));
                }
            }
            page.y += HIGH;
        }
        self.columns(page);
    }

    fn rectangle(&self, x: f64, y: f64, fill: &str, title: &str) -> Element {
        let numbers = [("x", x), ("y", y), ("width", self.cell), ("height", HIGH), ("stroke-width", 0.5)];
        let mut rectangle = shape("rect", &numbers, &[("stroke", FAINT)]);
        rectangle.assign("fill", fill);
        rectangle.append(said("title", title));
        rectangle
    }

    /// As many labels as have room.
    fn columns(&self, page: &mut Page) {
        let wide = self.panel.columns.iter().map(|column| Style::remark().width(column)).fold(0.0, f64::max) + 6.0;
        let every = (wide.min(90.0) / self.cell).ceil().max(1.0) as usize;
        for (place, column) in self.panel.columns.iter().enumerate().step_by(every) {
            let middle = self.left + (place as f64 + 0.5) * self.cell;
            page.draw(Style::remark().middle().write(middle, page.y + SMALL + 3.0, column, every as f64 * self.cell));
        }
        page.y += SMALL + 6.0;
    }
}

/// What the shades mean, at the right of a heading.
fn key(page: &mut Page, shading: Shading) {
    let ends = [shading.range.low, shading.range.high].map(|end| print(end.clamp(-LARGEST, LARGEST)));
    let right = page.width - MARGIN - Style::small().width(&ends[1]) - 6.0;
    let left = right - KEY;
    let (y, step) = (page.y + 2.0, KEY / STEPS as f64);
    for at in 0..STEPS {
        let share = (at as f64 + 0.5) / STEPS as f64;
        let numbers = [("x", left + at as f64 * step), ("y", y), ("width", step + 0.2), ("height", 10.0)];
        let mut piece = shape("rect", &numbers, &[]);
        piece.assign("fill", shade(share));
        piece.append(said("title", &print(shading.number(share))));
        page.draw(piece);
    }
    page.draw(Style::small().end().write(left - 6.0, y + 9.0, &ends[0], 80.0));
    page.draw(Style::small().write(right + 6.0, y + 9.0, &ends[1], 80.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(cells: Cells, rows: usize, columns: usize) -> Panel {
        Panel {
            heading: "Relative difference".to_owned(),
            note: "of each tensor".to_owned(),
            rows: (0..rows).map(|row| format!("<kind> {row}")).collect(),
            columns: (0..columns).map(|column| column.to_string()).collect(),
            cells,
        }
    }

    /// The fill of a cell, by its title.
    fn fill<'a>(picture: &'a str, title: &str) -> &'a str {
        let at = picture.find(&format!("<title>{title}</title>"));
        let before = &picture[..at.unwrap_or_else(|| panic!("no {title} in {picture}"))];
        before.rsplit("fill=\"").next().unwrap().split('"').next().unwrap()
    }

    #[test]
    fn the_largest_is_darkest_and_a_zero_on_a_logarithmic_scale_is_paper() {
        let numbers = Cells::Numbers(vec![vec![Some(1e-6), Some(1e-3), Some(1.0)], vec![Some(0.0), None, Some(1e-6)]]);
        let picture = heat("A", &[panel(numbers, 2, 3)], &[]);
        let at =
            |row: usize, column: usize, text: &str| fill(&picture, &format!("&lt;kind&gt; {row}, {column}: {text}"));
        assert_eq!((at(0, 0, "1.0e-6"), at(1, 2, "1.0e-6")), ("#E9F2FA", "#E9F2FA"));
        assert_eq!((at(0, 2, "1"), at(1, 0, "0"), at(1, 1, "no value")), ("#06243F", PAPER, PAPER));
        // Half way on a logarithmic scale: between the second and the third shade.
        assert_eq!(at(0, 1, "0.001"), "#4699CC");
    }

    #[test]
    fn shades_are_even_over_a_narrow_range_and_below_zero() {
        let shading = Shading::of(&[vec![Some(-1.0), Some(1.0), Some(0.0), None]]).unwrap();
        assert_eq!([-1.0, 0.0, 1.0].map(|number| shading.share(number)), [Some(0.0), Some(0.5), Some(1.0)]);
        assert_eq!(Shading::of(&[vec![Some(2.0)]]).unwrap().share(2.0), Some(0.5));
        assert!(Shading::of(&[vec![None]]).is_none());
        let zeros = Shading::of(&[vec![Some(0.0), Some(0.0)]]).unwrap();
        assert_eq!((zeros.logarithmic, zeros.share(0.0)), (false, Some(0.5)));
    }

    #[test]
    fn words_have_a_colour_each_and_a_legend() {
        let word = |word: &str| Some(word.to_owned());
        let picture = heat("A", &[panel(Cells::Words(vec![vec![word("cholesky"), word("plain"), None]]), 1, 3)], &[]);
        assert!(picture.contains("cholesky: 1, plain: 1"), "{picture}");
        let at = |column: usize, text: &str| fill(&picture, &format!("&lt;kind&gt; 0, {column}: {text}")).to_owned();
        assert_eq!([at(0, "cholesky"), at(1, "plain")], [COLOURS[0], COLOURS[1]]);
    }

    #[test]
    fn a_model_of_a_hundred_layers_stays_on_its_page_and_one_without_any_is_a_picture() {
        let numbers = Cells::Numbers(vec![(0..100).map(|at| Some(f64::from(at))).collect(); 9]);
        let picture = heat("A", &[panel(numbers, 9, 100)], &[]);
        let number = |tag: &str, name: &str| -> Option<f64> {
            tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?.parse().ok()
        };
        let page = number(&picture, "width").unwrap();
        let tags = picture.split('<').filter(|tag| tag.starts_with("rect"));
        let right = tags.filter_map(|tag| Some(number(tag, "x")? + number(tag, "width")?)).fold(0.0, f64::max);
        assert!(right <= page, "{right} of {page}");
        assert!(heat("A", &[], &[]).contains("there is nothing to show"));
    }

    #[test]
    fn a_table_has_a_gap_where_a_layer_lacks_a_kind() {
        let cell = |row: &str, column: &str, value: f64| (row.to_owned(), column.to_owned(), Some(value));
        let (rows, columns, cells) = table(vec![cell("q", "0", 1.0), cell("k", "0", 2.0), cell("q", "1", 3.0)]);
        assert_eq!((rows, columns), (vec!["q".to_owned(), "k".to_owned()], vec!["0".to_owned(), "1".to_owned()]));
        assert_eq!(cells, [[Some(1.0), Some(3.0)], [Some(2.0), None]]);
    }
}
