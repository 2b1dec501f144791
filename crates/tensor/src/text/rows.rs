//! Rows of a data set and the experiment's templates over their columns.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mergelab_wire::{RowRange, Rows};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use super::chat::{Turn, environment, explain};
use super::error::TextError;
use super::json;
use crate::failure::FileError;

/// Reads a JSON Lines file row by row, or a range of its lines; blank lines are not rows, and count. Rows keep their
/// numbers in the whole file.
///
/// # Errors
/// When it cannot be opened; each row's own error comes with the row.
pub fn read(
    path: &Path,
    range: Option<RowRange>,
) -> Result<impl Iterator<Item = Result<(usize, Value), TextError>>, TextError> {
    let file = File::open(path).map_err(FileError::of("read", path))?;
    let path: PathBuf = path.to_path_buf();
    let (first, count) = range.map_or((0, usize::MAX), |range| (range.first as usize, range.count as usize));
    Ok(BufReader::new(file).lines().enumerate().skip(first).take(count).filter_map(move |(index, line)| {
        let row = index + 1;
        let line = match line {
            Ok(line) => line,
            Err(source) => return Some(Err(FileError::of("read", &path)(source).into())),
        };
        if line.trim().is_empty() {
            return None;
        }
        let not_a_row = |reason: String| TextError::NotARow { file: path.clone(), row, reason };
        Some(match json::parse(&line) {
            Ok(value) if value.kind() == minijinja::value::ValueKind::Map => Ok((row, value)),
            Ok(value) => Err(not_a_row(format!("it is a {}", value.kind()))),
            Err(error) => Err(not_a_row(error.to_string())),
        })
    }))
}

/// The columns of a row.
pub fn columns(row: &Value) -> Vec<String> {
    row.try_iter().into_iter().flatten().map(|key| key.to_string()).collect()
}

/// What a row becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum Rendered {
    /// A conversation.
    Turns(Vec<Turn>),
    /// A text.
    Text(String),
}

impl Rendered {
    /// Whether nothing is said in it.
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Turns(turns) => turns.iter().all(|turn| turn.content.trim().is_empty()),
            Self::Text(text) => text.trim().is_empty(),
        }
    }
}

/// Why a row could not be rendered.
#[derive(Debug, PartialEq, Eq)]
pub enum RowError {
    /// It lacks this column.
    Lacks(String),
    /// The template failed.
    Failed {
        /// Which template.
        place: String,
        /// What the engine said.
        reason: String,
    },
}

/// The experiment's templates, compiled.
///
/// Plain Jinja: nothing is trimmed, a column that a row lacks is an error unless the template allows for it (`is
/// defined`, `default`), and `null` is an empty text.
#[derive(Debug)]
pub struct RowTemplates {
    environment: Environment<'static>,
    /// Template names: (role, content) pairs, or the single text.
    messages: Option<Vec<(String, String)>>,
}

impl RowTemplates {
    /// Compiles the templates of `messages:` or `text:`.
    ///
    /// # Errors
    /// When one is not a template; it is named by its place.
    pub fn compile(rows: &Rows) -> Result<Self, TextError> {
        let mut environment = environment();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(|out, _, value| {
            if value.is_undefined() {
                // The engine asks before it prints in strict mode; an undefined value here came through a filter.
                return Err(minijinja::Error::from(ErrorKind::UndefinedError));
            }
            if value.is_none() {
                return Ok(());
            }
            out.write_str(&super::python::str(value)).map_err(minijinja::Error::from)
        });
        let fail = |place: &str, error: &minijinja::Error| TextError::Template {
            place: place.to_owned(),
            reason: explain(error),
        };
        let syntax =
            SyntaxConfig::builder().keep_trailing_newline(true).build().map_err(|error| fail("syntax", &error))?;
        environment.set_syntax(syntax);
        let mut add = |place: String, source: &str| -> Result<String, TextError> {
            environment.add_template_owned(place.clone(), source.to_owned()).map_err(|error| fail(&place, &error))?;
            Ok(place)
        };
        let messages = match rows {
            Rows::Text(text) => {
                add("text".to_owned(), text)?;
                None
            }
            Rows::Messages(messages) => Some(
                messages
                    .iter()
                    .enumerate()
                    .map(|(index, message)| {
                        let role = add(format!("messages[{index}].role"), &message.role)?;
                        Ok((role, add(format!("messages[{index}].content"), &message.content)?))
                    })
                    .collect::<Result<_, TextError>>()?,
            ),
        };
        Ok(Self { environment, messages })
    }

    /// Renders one row.
    ///
    /// # Errors
    /// When it lacks a column or a template fails on it.
    pub fn render(&self, row: &Value) -> Result<Rendered, RowError> {
        match &self.messages {
            None => Ok(Rendered::Text(self.render_one("text", row)?)),
            Some(messages) => Ok(Rendered::Turns(
                messages
                    .iter()
                    .map(|(role, content)| {
                        Ok(Turn { role: self.render_one(role, row)?, content: self.render_one(content, row)? })
                    })
                    .collect::<Result<_, RowError>>()?,
            )),
        }
    }

    fn render_one(&self, place: &str, row: &Value) -> Result<String, RowError> {
        let watched = Arc::new(Watched { row: row.clone(), lacking: Mutex::default() });
        let result = self
            .environment
            .get_template(place)
            .and_then(|template| template.render(Value::from_dyn_object(Arc::clone(&watched))));
        result.map_err(|error| {
            let lacking = watched.lacking.lock().expect("a rendering does not panic").take();
            match (error.kind(), lacking) {
                (ErrorKind::UndefinedError, Some(column)) => RowError::Lacks(column),
                _ => RowError::Failed { place: place.to_owned(), reason: explain(&error) },
            }
        })
    }
}

/// A row that remembers the last column it was asked for and lacks.
#[derive(Debug)]
struct Watched {
    row: Value,
    lacking: Mutex<Option<String>>,
}

impl Object for Watched {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let value = self.row.get_item(key).ok().filter(|value| !value.is_undefined());
        if value.is_none() {
            *self.lacking.lock().expect("a rendering does not panic") = Some(key.to_string());
        }
        value
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.row.try_iter().into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> Value {
        json::parse(json).unwrap()
    }

    fn text(template: &str) -> RowTemplates {
        RowTemplates::compile(&Rows::Text(template.to_owned())).unwrap()
    }

    #[test]
    fn a_text_keeps_its_last_newline_and_its_spaces() {
        let rendered = text("{{ a }}\n  {% if true %}\n x{% endif %}\n").render(&row(r#"{"a":"1"}"#)).unwrap();
        assert_eq!(rendered, Rendered::Text("1\n  \n x\n".to_owned()));
    }

    #[test]
    fn a_lacking_column_is_named() {
        assert_eq!(text("{{ a }}{{ b }}").render(&row(r#"{"a":"1"}"#)).unwrap_err(), RowError::Lacks("b".to_owned()));
        assert_eq!(text("{{ b.c }}").render(&row(r#"{"a":"1"}"#)).unwrap_err(), RowError::Lacks("b".to_owned()));
        assert_eq!(text("{% if b %}x{% endif %}").render(&row("{}")).unwrap_err(), RowError::Lacks("b".to_owned()));
    }

    #[test]
    fn a_template_may_allow_for_a_lacking_column() {
        let rendered = text("{{ b | default('none') }}{% if c is defined %}x{% endif %}").render(&row("{}")).unwrap();
        assert_eq!(rendered, Rendered::Text("none".to_owned()));
    }

    #[test]
    fn null_is_an_empty_text_and_other_values_print_as_in_python() {
        let rendered = text("[{{ a }}{{ b }}{{ c }}]").render(&row(r#"{"a":null,"b":true,"c":1.5}"#)).unwrap();
        assert_eq!(rendered, Rendered::Text("[True1.5]".to_owned()));
    }

    #[test]
    fn a_bad_template_is_named_by_its_place() {
        let message = mergelab_wire::Message { role: "user".to_owned(), content: "{{ a".to_owned() };
        let error = RowTemplates::compile(&Rows::Messages(vec![message])).unwrap_err();
        assert!(error.to_string().starts_with("messages[0].content: "), "{error}");
    }
}
