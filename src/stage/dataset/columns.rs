//! The columns of a data set that lies in several files: each row of it has the same ones, in the same order.
//!
//! They are those that the repository declares, else those of the split's first file (of JSON, those of its first rows). A
//! file that lacks one has null there; one that has another is refused, as `datasets` does.

use serde_json::{Map, Value};

use super::card::Declared;
use super::format::Format;
use crate::stage::Failure;
use crate::stage::rows::{Form, Row};

/// The columns of every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Names in order, with the kind of values where a file says it.
    columns: Vec<(String, Option<Form>)>,
    /// Where they are from, in a message.
    of: String,
}

impl Columns {
    /// Those that are declared for files of a format: of CSV all values are text, whatever is said of them.
    pub(super) fn declared(columns: &[Declared], format: Format) -> Self {
        let form = |form: &Option<Form>| form.clone().filter(|_| format != Format::Csv);
        let columns = columns.iter().map(|(name, declared)| (name.clone(), form(declared))).collect();
        Self { columns, of: "the README.md".to_owned() }
    }

    /// Those of the first file.
    pub(super) fn of_file(columns: Vec<(String, Option<Form>)>, path: &str) -> Self {
        Self { columns, of: path.to_owned() }
    }

    /// Holds the columns that a file says it has against these, before its rows are read. The first file that says which
    /// kind of values a column has decides.
    ///
    /// # Errors
    /// When it has another column, or one with values of another kind.
    pub(super) fn check(&mut self, found: &[(String, Form)], path: &str) -> Result<(), Failure> {
        for (name, form) in found {
            let Some((_, own)) = self.columns.iter_mut().find(|(column, _)| column == name) else {
                return Err(self.another(name, path));
            };
            let own = own.get_or_insert_with(|| form.clone());
            if !own.takes(form) {
                return Err(other_kind(path, name, form, own, &self.of));
            }
        }
        Ok(())
    }

    /// A row with these columns.
    ///
    /// # Errors
    /// When it has another one, or text where other values are declared.
    pub(super) fn fit(&self, mut row: Map<String, Value>, path: &str) -> Row {
        let same = row.len() == self.columns.len()
            && row.keys().zip(&self.columns).all(|(found, (column, form))| found == column && form.is_none());
        if same {
            return Ok(row);
        }
        let mut fitted = Map::with_capacity(self.columns.len());
        for (name, form) in &self.columns {
            let value = row.shift_remove(name).unwrap_or(Value::Null);
            let value = match form {
                Some(form @ (Form::Boolean | Form::Integer | Form::Number)) if value.is_string() => {
                    return Err(other_kind(path, name, &Form::Text, form, &self.of));
                }
                Some(form) => form.take(value),
                None => value,
            };
            fitted.insert(name.clone(), value);
        }
        match row.keys().next() {
            None => Ok(fitted),
            Some(name) => Err(self.another(name, path)),
        }
    }

    fn another(&self, name: &str, path: &str) -> Failure {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| format!("`{name}`")).collect();
        Failure::experiment(format!(
            "{path}: it has a column `{name}`, where {} has {} and no other",
            self.of,
            names.join(", ")
        ))
        .hint("the files of a split have the same columns; `datasets` does not read these either")
    }
}

fn other_kind(path: &str, name: &str, found: &Form, wanted: &Form, of: &str) -> Failure {
    Failure::experiment(format!("{path}: the column `{name}` is {found}, and {wanted} in {of}")).hint(
        "`datasets` would turn one into the other, where it can; export the rows once, and name the file in `path`",
    )
}
