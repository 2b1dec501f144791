//! A results table: what stands in which row and column, and what it is held against.

use std::path::PathBuf;

use serde::Serialize;

/// A results table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Rows, expanded.
    pub rows: Vec<Row>,
    /// Columns.
    pub columns: Vec<TableColumn>,
    /// Model that every other row is tested against.
    pub baseline: Option<String>,
    /// Which values are bold.
    pub bold: Bold,
    /// Whether the second best values are underlined.
    pub second: bool,
    /// CSV with published values, relative to the project root.
    pub published: Option<PathBuf>,
    /// File that holds the table's block, relative to the project root.
    pub into: Option<PathBuf>,
}

impl Table {
    /// The columns that show a metric.
    pub fn metrics(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter_map(|column| match column {
            TableColumn::Metric(column) => Some(column),
            TableColumn::Mean(_) => None,
        })
    }

    /// Whether some of its values are held against others by a test.
    pub fn is_tested(&self) -> bool {
        self.baseline.is_some() || self.bold == Bold::NotWorse
    }

    /// Models whose figures it needs on a column: those of its rows, the baseline, and the column's specialist.
    pub fn models<'a>(&'a self, column: &'a Column) -> impl Iterator<Item = &'a str> {
        let rows = self.rows.iter().map(|row| row.model.as_str());
        rows.chain(self.baseline.as_deref()).chain(column.specialist.as_deref())
    }
}

/// Which values of a column are bold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bold {
    /// The best.
    #[default]
    Best,
    /// The best, and those that a test does not tell from it.
    NotWorse,
}

/// One row of a table: a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of a model or merge.
    pub model: String,
    /// Label; the name if absent.
    pub label: Option<String>,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TableColumn {
    /// A metric of a task.
    Metric(Column),
    /// A mean over other columns.
    Mean(Mean),
}

/// A column that shows a mean over other columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// Of what.
    pub mean: MeanOf,
    /// The columns, by their places in the table.
    pub of: Vec<usize>,
    /// Heading.
    pub label: String,
    /// Remark under the heading.
    pub note: Option<String>,
    /// Digits after the point; 2 if absent.
    pub digits: Option<usize>,
}

/// What a mean is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeanOf {
    /// The values as they are shown.
    Scores,
    /// What they are in per cent of the columns' specialists.
    Normalized,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notation {
    /// With a fixed number of digits after the point.
    #[default]
    Fixed,
    /// With a power of ten, for values of very different size.
    Scientific,
}

impl Notation {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    fn is_fixed(&self) -> bool {
        *self == Self::Fixed
    }
}

/// A column that shows a metric of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Name of a task in a suite.
    pub task: String,
    /// Metric, under the task's own name for it.
    pub metric: String,
    /// Filter; whichever the task has if absent and there is one.
    pub filter: Option<String>,
    /// Heading; the task's name if absent.
    pub label: Option<String>,
    /// Remark under the heading.
    pub note: Option<String>,
    /// What values are multiplied by; 100 for rates if absent.
    pub scale: Option<f64>,
    /// Digits after the point; 2 if absent.
    pub digits: Option<usize>,
    /// How numbers are written.
    #[serde(skip_serializing_if = "Notation::is_fixed")]
    pub notation: Notation,
    /// Model whose value is 100 % in a normalized mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specialist: Option<String>,
}
