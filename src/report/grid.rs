//! A finished table, before it has a format: what stands in which cell, and what stands under it.
//!
//! All text in a grid is on one line and free of control characters; numbers are printed already. A format adds nothing
//! but its own escaping and layout, so no two formats can disagree on a number.

use crate::experiment::Bold;
use crate::stats::SIGNIFICANCE;

/// A table, ready to be written in any format.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Name of the table in the experiment.
    pub name: String,
    /// Columns, left to right, without that of the models.
    pub columns: Vec<Heading>,
    /// Rows, top to bottom.
    pub rows: Vec<Line>,
    /// Where the published figures come from; a cell refers to one by its place.
    pub origins: Vec<Origin>,
    /// Why cells are empty; a cell refers to one by its place.
    pub reasons: Vec<String>,
    /// Which values are bold.
    pub bold: Bold,
    /// Whether it is the other way round: metrics as rows, models as columns.
    pub turned: bool,
    /// What else stands under the table: of its tests and its means, each with the mark that it explains.
    pub remarks: Vec<(String, String)>,
}

/// Head of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Heading {
    /// The column's label, or the task's name, with its unit.
    pub label: String,
    /// Remark under it.
    pub note: Option<String>,
    /// Web address that it leads to.
    pub link: Option<String>,
    /// Whether it shows how far measured values are from published ones.
    pub compares: bool,
}

impl Heading {
    /// The row that it is before.
    pub(super) fn line(self, cells: Vec<Cell>) -> Line {
        let Self { label, note, link, compares } = self;
        Line { label, note, link, compares, cells }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The row's label, or the model's name.
    pub label: String,
    /// Remark on it, where rows are metrics.
    pub note: Option<String>,
    /// Web address that it leads to.
    pub link: Option<String>,
    /// Whether it shows how far measured values are from published ones.
    pub compares: bool,
    /// As many cells as the grid has columns.
    pub cells: Vec<Cell>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A measured figure.
    Measured {
        /// The figure.
        figure: Figure,
        /// Whether no measured figure of the column is better, and some are worse or as good; or, where the table asks
        /// for that, whether a test does not tell it from such a figure.
        best: bool,
        /// Whether it is the best of those that are not best, where the table asks for that.
        second: bool,
        /// What it is beside the table's baseline.
        against: Option<Against>,
        /// The published figure for the same, beside it.
        beside: Option<Published>,
        /// Measured minus published, in standard errors of that difference.
        difference: Option<String>,
    },
    /// A published figure where nothing was measured.
    Published(Published),
    /// How far the measured value before it is from the published one.
    Compared(Compared),
    /// Nothing; the place of the reason in [`Grid::reasons`].
    Missing(usize),
    /// Nothing, where nothing belongs.
    Blank,
}

/// How far a measured value is from a published one.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Measured minus published, with its sign.
    pub difference: String,
    /// The same in standard errors of that difference, where they are known.
    pub errors: Option<String>,
    /// Whether it is more than [`FAR`] of them.
    pub far: bool,
}

/// From how many standard errors on a difference is marked.
pub const FAR: f64 = 2.0;

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.errors {
            Some(errors) => write!(f, "{} ({errors} SE)", self.difference)?,
            None => write!(f, "{} (no SE)", self.difference)?,
        }
        f.write_str(if self.far { " ≠" } else { "" })
    }
}

/// What a test against the baseline says.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    /// Its p-value.
    pub p: String,
    /// What that means.
    pub verdict: Verdict,
}

/// What a value is beside that of the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better by more than chance explains.
    Better,
    /// Worse by more than chance explains.
    Worse,
    /// Neither.
    Even,
}

/// A printed number.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The number.
    pub value: String,
    /// What stands behind its ±: its standard error, or over replicates their standard deviation.
    pub spread: Option<String>,
    /// How many replicates it is the mean of, where it is of replicates.
    pub replicates: Option<usize>,
}

/// A published figure and where it comes from: the place in [`Grid::origins`].
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The figure.
    pub figure: Figure,
    /// The place of its origin.
    pub origin: usize,
}

/// Where a published figure comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Who published it and where.
    pub citation: String,
    /// Remark on it.
    pub note: Option<String>,
    /// Its shots, where they differ from those of the figure measured beside it.
    pub shots: Option<u64>,
}

impl Grid {
    /// The table the other way round.
    #[must_use]
    pub fn turn(self) -> Self {
        let split =
            |Line { label, note, link, compares, cells }| (Heading { label, note, link, compares }, cells.into_iter());
        let (columns, mut cells): (Vec<_>, Vec<std::vec::IntoIter<Cell>>) = self.rows.into_iter().map(split).unzip();
        let mut next = || cells.iter_mut().filter_map(Iterator::next).collect();
        let rows = self.columns.into_iter().map(|heading| heading.line(next())).collect();
        Self { columns, rows, turned: !self.turned, ..self }
    }

    /// Without the columns that say how far other columns are from what was published.
    #[must_use]
    pub fn without_comparisons(mut self) -> Self {
        for row in &mut self.rows {
            let mut headings = self.columns.iter();
            row.cells.retain(|_| headings.next().is_some_and(|heading| !heading.compares));
        }
        self.columns.retain(|heading| !heading.compares);
        self
    }

    /// What stands over the first column.
    pub(super) fn corner(&self) -> &'static str {
        if self.turned { "Task" } else { "Model" }
    }

    /// Where published figures come from and why figures are missing, each with its mark.
    pub fn sources(&self) -> Vec<(String, String)> {
        let origins = self.origins.iter().enumerate().map(|(i, origin)| (mark(i), origin.to_string()));
        let reasons = self.reasons.iter().enumerate().map(|(i, reason)| (letter(i), reason.clone()));
        origins.chain(reasons).collect()
    }

    /// The lines under the table, each with the mark that it explains.
    pub fn notes(&self) -> Vec<(String, String)> {
        let mut notes = self.sources();
        let cells = || self.rows.iter().flat_map(|row| &row.cells);
        let line = if self.turned { "row" } else { "column" };
        let mut explain = |mark: &str, text: &str| notes.push((mark.to_owned(), text.to_owned()));
        if cells().any(Cell::is_best) {
            let best = format!("the best measured value of the {line}");
            explain(
                "Bold:",
                &match self.bold {
                    Bold::Best => best,
                    Bold::NotWorse => {
                        format!(
                            "{best}, and those not worse by a paired test on the same documents (p ≥ {SIGNIFICANCE})"
                        )
                    }
                },
            );
        }
        if cells().any(|cell| matches!(cell, Cell::Measured { second: true, .. })) {
            explain("Underlined:", &format!("the second best measured value of the {line}"));
        }
        if cells().any(Cell::has_stderr) {
            explain("±", "one standard error");
        }
        if cells().any(|cell| matches!(cell, Cell::Measured { difference: Some(_), .. })) {
            explain("SE:", "measured minus published, in standard errors of the difference");
        }
        let compared = || {
            cells().filter_map(|cell| match cell {
                Cell::Compared(compared) => Some(compared),
                _ => None,
            })
        };
        if compared().any(|compared| compared.errors.is_some()) {
            let text = "standard errors of the difference; that of a published value counts as 0 where it is not known";
            explain("SE:", text);
        }
        if compared().any(|compared| compared.errors.is_none()) {
            let text =
                "the measured value has no standard error, so what chance explains of the difference is not known";
            explain("No SE:", text);
        }
        if compared().any(|compared| compared.far) {
            explain("≠:", &format!("more than {FAR} standard errors apart"));
        }
        notes.extend(self.remarks.iter().cloned());
        notes
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "published, not measured here: {}", self.citation)?;
        if let Some(note) = &self.note {
            write!(f, "; {note}")?;
        }
        if let Some(shots) = self.shots {
            write!(f, "; with {shots} shots, so not compared")?;
        }
        Ok(())
    }
}

impl Cell {
    /// Whether it is a measured figure that no other of its column beats.
    pub fn is_best(&self) -> bool {
        matches!(self, Self::Measured { best: true, .. })
    }

    /// What stands behind its value, if it is better or worse than the baseline: an arrow.
    pub(crate) fn arrow(&self) -> Option<char> {
        match self {
            Self::Measured { against: Some(Against { verdict, .. }), .. } => match verdict {
                Verdict::Better => Some('↑'),
                Verdict::Worse => Some('↓'),
                Verdict::Even => None,
            },
            _ => None,
        }
    }

    /// Its published figure, if it shows one.
    pub fn published(&self) -> Option<&Published> {
        match self {
            Self::Measured { beside, .. } => beside.as_ref(),
            Self::Published(published) => Some(published),
            Self::Compared(_) | Self::Missing(_) | Self::Blank => None,
        }
    }

    fn has_stderr(&self) -> bool {
        let one = |figure: &Figure| figure.spread.is_some() && figure.replicates.is_none();
        let measured = matches!(self, Self::Measured { figure, .. } if one(figure));
        measured || self.published().is_some_and(|published| one(&published.figure))
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.value)?;
        self.spread.as_ref().map_or(Ok(()), |spread| write!(f, " ± {spread}"))
    }
}

/// The mark of the published figures of origin `i`: †, ‡, §, ¶, †5, †6, …
pub(crate) fn mark(i: usize) -> String {
    ["†", "‡", "§", "¶"].get(i).map_or_else(|| format!("†{}", i + 1), ToString::to_string)
}

/// The mark of the cells that are empty for reason `i`: (a) … (z), (27), …
pub(crate) fn letter(i: usize) -> String {
    u8::try_from(i)
        .ok()
        .filter(|i| *i < 26)
        .map_or_else(|| format!("({})", i + 1), |i| format!("({})", char::from(b'a' + i)))
}

/// What a published figure looks like: never without its mark.
pub(crate) fn quoted(published: &Published) -> String {
    format!("{} {}", published.figure, mark(published.origin))
}

/// What stands beside a measured figure, with a space before it, or nothing.
pub(crate) fn aside(beside: Option<&Published>, difference: Option<&str>) -> String {
    match (beside, difference) {
        (Some(beside), Some(difference)) => format!(" ({}; {difference} SE)", quoted(beside)),
        (Some(beside), None) => format!(" ({})", quoted(beside)),
        (None, _) => String::new(),
    }
}

/// What an empty cell looks like.
pub(crate) fn missing(reason: usize) -> String {
    format!("— {}", letter(reason))
}
