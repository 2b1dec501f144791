//! What can be wrong with rows, templates and tokenizers.

use std::path::PathBuf;

use mergelab_wire::Fault;

use crate::failure::{Diagnosis, FileError};

/// What can be wrong with rows, templates and tokenizers.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line of the data is not a JSON object.
    #[error("{}, row {row}: not a JSON object: {reason}", file.display())]
    NotARow {
        /// The data file.
        file: PathBuf,
        /// Counted from 1.
        row: usize,
        /// What the parser said.
        reason: String,
    },
    /// A column that a template names is nowhere in the data, or not in this row and `strict` is set.
    #[error("{}, row {row}: no column {column:?} (the row has {})", file.display(), list(available))]
    Column {
        /// The data file.
        file: PathBuf,
        /// Counted from 1; the first that lacks it.
        row: usize,
        /// The column.
        column: String,
        /// The columns of that row.
        available: Vec<String>,
        /// The most similar of them.
        nearest: Option<String>,
        /// Whether no row has it.
        nowhere: bool,
    },
    /// `strict` is set and a row has nothing in it.
    #[error("{}, row {row}: {what}", file.display())]
    Unusable {
        /// The data file.
        file: PathBuf,
        /// Counted from 1.
        row: usize,
        /// `the row is empty`, `the row gives no tokens`.
        what: &'static str,
    },
    /// No row gives a token that counts.
    #[error("{}: none of the {rows} rows gives a token that counts ({why})", file.display())]
    NoTokens {
        /// The data file.
        file: PathBuf,
        /// How many rows there are.
        rows: usize,
        /// How many were skipped for which reason.
        why: String,
    },
    /// A template of the experiment or of the model is wrong.
    #[error("{place}: {reason}")]
    Template {
        /// Where it stands.
        place: String,
        /// What the engine said.
        reason: String,
    },
    /// A template failed on a row.
    #[error("{}, row {row}: {place} failed: {reason}", file.display())]
    Render {
        /// The data file.
        file: PathBuf,
        /// Counted from 1.
        row: usize,
        /// Which template.
        place: String,
        /// What the engine said.
        reason: String,
    },
    /// `messages` are used and there is no chat template.
    #[error("{}: the model has {}, and the rows are `messages`", model.display(), no_template(named))]
    NoChatTemplate {
        /// The model directory.
        model: PathBuf,
        /// Names of the templates that it has, none of them the default.
        named: Vec<String>,
    },
    /// `tokens: assistant` on rows that are no conversation.
    #[error("`tokens: assistant` needs rows with `messages`, these are `text`")]
    AssistantOfText,
    /// The chat template does not let the assistant's words be found.
    #[error("{}, row {row}: cannot tell what the assistant says: {reason}", file.display())]
    Assistant {
        /// The data file.
        file: PathBuf,
        /// Counted from 1.
        row: usize,
        /// What does not fit.
        reason: String,
    },
    /// The tokenizer cannot be read or failed.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// `tokenizer.json` or `tokenizer_config.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

fn no_template(named: &[String]) -> String {
    match named {
        [] => "no chat template".to_owned(),
        _ => format!("chat templates but none that is the default, only {}", named.join(", ")),
    }
}

fn list(columns: &[String]) -> String {
    if columns.is_empty() { "no columns".to_owned() } else { columns.join(", ") }
}

impl Diagnosis for TextError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Column { nearest, nowhere, .. } => {
                let meant = nearest.as_ref().map(|column| format!("did you mean {column:?}?"));
                if *nowhere {
                    meant.or_else(|| Some("no row has it: name a column of the data in the template".to_owned()))
                } else {
                    let way = "`strict: false` counts such rows and skips them; `{{ column | default(\"\") }}` allows for them";
                    Some(meant.map_or_else(|| way.to_owned(), |meant| format!("{meant} {way}")))
                }
            }
            Self::Unusable { .. } => Some("`strict: false` counts such rows and skips them".to_owned()),
            Self::NoTokens { .. } => Some("look at the data, `max_length`, `skip_first` and `tokens`".to_owned()),
            Self::NoChatTemplate { .. } => Some(
                "state a `chat_template:` file, or give the data set a `text:` template in place of `messages:`".to_owned(),
            ),
            Self::AssistantOfText => Some("use `messages:` in the data set, or `tokens: all`".to_owned()),
            Self::Assistant { .. } => Some(
                "mark the assistant's words in the template with {% generation %} … {% endgeneration %} (`chat_template:` lends one)"
                    .to_owned(),
            ),
            Self::Render { place, .. } if place != "text" && !place.starts_with("messages[") => {
                Some("give the data set `messages` that this template takes, or state another one with `chat_template:`".to_owned())
            }
            Self::Render { .. } | Self::Template { .. } | Self::NotARow { .. } | Self::Tokenizer { .. } => None,
        }
    }
}
