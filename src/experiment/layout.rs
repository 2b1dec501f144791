//! A results table: what stands in which row and column, and what it is held against.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where the results of an experiment lie, relative to the project root.
pub fn results_folder(experiment: &str) -> PathBuf {
    Path::new("results").join(experiment)
}

/// A results table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Rows, expanded.
    pub rows: Vec<Row>,
    /// Columns; those of an [`Across`] once for each of its values.
    pub columns: Vec<TableColumn>,
    /// Whether it is shown the other way round: metrics as rows, models as columns.
    pub turned: bool,
    /// The swept key whose values stand side by side.
    pub across: Option<Across>,
    /// Model that every other row is tested against.
    pub baseline: Option<String>,
    /// Which values are bold.
    pub bold: Bold,
    /// Whether the second best values are underlined.
    pub second: bool,
    /// CSV with published values, relative to the project root.
    pub published: Option<PathBuf>,
    /// Whether a column beside each that has published values shows how far the measured ones are from them.
    pub comparison: bool,
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

    /// The other experiments that it shows models of, each once.
    pub fn others(&self) -> Vec<&Elsewhere> {
        let mut others: Vec<&Elsewhere> = Vec::new();
        for other in self.rows.iter().filter_map(|row| row.elsewhere.as_ref()) {
            if !others.contains(&other) {
                others.push(other);
            }
        }
        others
    }

    /// Whether some of its values are held against others by a test.
    pub fn is_tested(&self) -> bool {
        self.baseline.is_some() || self.bold == Bold::NotWorse
    }

    /// Models whose figures it needs on a column: those of its rows, the baseline, and the column's specialist.
    pub fn models<'a>(&'a self, column: &'a Column) -> impl Iterator<Item = &'a str> {
        let rows = self.rows.iter().flat_map(|row| row.models(column.at.as_deref()));
        rows.chain(self.baseline.as_deref()).chain(column.specialist.as_deref())
    }
}

/// A swept key of which each value has columns of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Across {
    /// The key.
    pub key: String,
    /// What stands before a value; `KEY =` if absent.
    pub label: Option<String>,
}

impl Across {
    /// What stands over a column at one of the values.
    pub fn says(&self, value: &str) -> String {
        match &self.label {
            Some(label) => format!("{label} {value}"),
            None => format!("{} = {value}", self.key),
        }
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

/// One row of a table: a model, or expansions of a sweep that share a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Name of a model or merge; of several, what their names share.
    pub model: String,
    /// Label; the name if absent.
    pub label: Option<String>,
    /// Web address that the label leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The swept key that makes its members replicates of each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicates: Option<String>,
    /// The expansions that share it; empty where it is the one model of its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// The experiment that its models are of, where that is another one; they then have the names [`Elsewhere::outside`].
    #[serde(skip)]
    pub elsewhere: Option<Elsewhere>,
}

/// Another experiment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elsewhere {
    /// Its name.
    pub experiment: String,
    /// Its file, relative to the project root.
    pub file: PathBuf,
}

impl Elsewhere {
    /// What one of its models is called in other experiments; no name has a `/`.
    pub fn outside(&self, model: &str) -> String {
        format!("{}/{model}", self.experiment)
    }

    /// What `results/` keeps of it that a table is made of, relative to the project root: its figures, and which way is
    /// better.
    pub fn kept(&self) -> [PathBuf; 2] {
        ["results.csv", "metrics.csv"].map(|file| results_folder(&self.experiment).join(file))
    }
}

/// An expansion that shares a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// Its name.
    pub model: String,
    /// Its value of the key that the table has [`Table::across`].
    pub at: Option<String>,
    /// Its value of the key that makes replicates.
    pub replicate: Option<String>,
}

impl Row {
    /// The models whose figures stand in a column, one unless they are replicates; `at` is the column's value of
    /// [`Table::across`].
    pub fn models<'a>(&'a self, at: Option<&str>) -> Vec<&'a str> {
        if self.members.is_empty() {
            return at.is_none().then_some(self.model.as_str()).into_iter().collect();
        }
        self.members.iter().filter(|member| member.at.as_deref() == at).map(|member| member.model.as_str()).collect()
    }
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
    /// Unit of the values, for the heading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The value of [`Table::across`] that it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
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
    /// Unit of the values, for the heading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Web address that the heading leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The value of [`Table::across`] that it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}
