//! Rows of several files one after the other, each file fetched when its rows are due and not before.

use std::path::PathBuf;

use super::choice::Choice;
use super::columns::Columns;
use crate::stage::Failure;
use crate::stage::data::Ordered;
use crate::stage::rows::{self, Row, Rows};

/// How much of a JSON file decides which columns a data set has, in bytes: as much as `datasets` reads at once.
const FIRST_BYTES: usize = 10 << 20;

/// Gets a file of the repository, by its path there, and says where it lies here.
pub(super) type Fetch<'a> = &'a mut dyn FnMut(&str) -> Result<PathBuf, Failure>;

/// The rows of a split, in order.
pub(super) struct Sequence<'a> {
    choice: &'a Choice,
    fetch: Fetch<'a>,
    columns: Option<Columns>,
    /// Index of the file that comes next.
    next: usize,
    rows: Option<Rows>,
}

impl<'a> Sequence<'a> {
    pub(super) fn new(choice: &'a Choice, fetch: Fetch<'a>) -> Self {
        let columns = choice.columns.as_deref().map(|columns| Columns::declared(columns, choice.format));
        Self { choice, fetch, columns, next: 0, rows: None }
    }

    fn open(&mut self, path: &str) -> Result<Rows, Failure> {
        let file = (self.fetch)(path)?;
        let found = rows::columns(&file, FIRST_BYTES);
        let columns = match &mut self.columns {
            Some(columns) => columns,
            none => none.insert(Columns::of_file(found.clone()?, path)),
        };
        // Of a file that says which kind of values it has, all of its columns are looked at before its rows.
        let said: Option<Vec<_>> = found?.into_iter().map(|(name, form)| Some((name, form?))).collect();
        if let Some(said) = said {
            columns.check(&said, path)?;
        }
        Rows::open(&file)
    }
}

impl Ordered for Sequence<'_> {
    /// All files are fetched for it. How many rows a Parquet file has stands in its footer.
    fn count(&mut self) -> Result<u64, Failure> {
        self.choice.files.iter().map(|path| Rows::count(&(self.fetch)(path)?)).sum()
    }

    fn rows(&mut self) -> Result<Box<dyn Iterator<Item = Row> + '_>, Failure> {
        Ok(Box::new(self))
    }
}

impl Iterator for Sequence<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            if let Some(row) = self.rows.as_mut().and_then(Iterator::next) {
                let path = &self.choice.files[self.next - 1];
                let columns = self.columns.as_ref().expect("a file that is open has said its columns");
                return Some(row.and_then(|row| columns.fit(row, path)));
            }
            let path = self.choice.files.get(self.next)?.clone();
            self.next += 1;
            match self.open(&path) {
                Ok(rows) => self.rows = Some(rows),
                Err(failure) => {
                    self.rows = None;
                    self.next = self.choice.files.len();
                    return Some(Err(failure));
                }
            }
        }
    }
}
