//! The table on standard output.

use crate::{Result, Times};

/// Rows are measurements, columns are tools.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its heading.
    pub(crate) fn new(tools: impl Iterator<Item = String>) -> Self {
        let heading = std::iter::once(String::new()).chain(tools).chain(["mergelab must".to_owned()]);
        Self { rows: vec![heading.collect()] }
    }

    /// Adds a measurement of each tool that is installed.
    pub(crate) fn row(
        &mut self,
        name: String,
        must: &str,
        mut measure: impl FnMut(usize) -> Result<Option<Times>>,
    ) -> Result<()> {
        eprintln!("measuring: {name}");
        let tools = self.rows[0].len() - 2;
        let mut cells = vec![name];
        for column in 0..tools {
            cells.push(measure(column)?.as_ref().map_or("not installed".to_owned(), cell));
        }
        cells.push(format!("<= {must}"));
        self.rows.push(cells);
        Ok(())
    }

    /// Prints it, columns aligned.
    pub(crate) fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
}

/// Median, number of runs, lowest.
pub(crate) fn cell(times: &Times) -> String {
    let milliseconds = |time: std::time::Duration| {
        let value = time.as_secs_f64() * 1e3;
        let digits = if value < 100.0 { 2 } else { 0 };
        format!("{value:.digits$}")
    };
    format!("{} ms (of {}; {})", milliseconds(times.median()), times.count(), milliseconds(times.lowest()))
}
