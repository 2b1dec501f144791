//! The sequences of token ids that a capture runs on, and what became of every row.

use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::{GramJob, RowRange, Rows, TokenMask};
use serde_json::json;

use super::chat::ChatTemplate;
use super::error::TextError;
use super::rows::{self, Rendered, RowError, RowTemplates};
use super::tokenizer::{Tokenizer, TokenizerConfig, Tokens};
use crate::report::Reporter;

/// How rows become sequences.
#[derive(Clone, Debug)]
pub struct TextSpec<'a> {
    /// Model directory: tokenizer and chat template.
    pub model: &'a Path,
    /// JSON Lines file.
    pub data: &'a Path,
    /// The file that messages name.
    pub shown: &'a Path,
    /// The experiment's templates.
    pub rows: &'a Rows,
    /// The rows of one shard, where not all are asked for. They keep their numbers in messages, and a shard none of
    /// whose rows gives a token is no error: others may have some.
    pub range: Option<RowRange>,
    /// Refuse what would be counted and skipped.
    pub strict: bool,
    /// Truncation in tokens.
    pub max_length: Option<usize>,
    /// Whether the tokenizer adds its special tokens.
    pub add_special_tokens: bool,
    /// Which tokens count.
    pub tokens: TokenMask,
    /// How many tokens at the start do not count.
    pub skip_first: usize,
    /// Chat template file in place of the model's own.
    pub chat_template: Option<&'a Path>,
}

impl<'a> TextSpec<'a> {
    /// What a capture asks for.
    pub fn of(job: &'a GramJob) -> Self {
        Self {
            model: &job.model,
            data: &job.data,
            shown: job.shown.as_deref().unwrap_or(&job.data),
            rows: &job.rows,
            range: job.range,
            strict: job.strict,
            max_length: job.max_length,
            add_special_tokens: job.add_special_tokens,
            tokens: job.tokens,
            skip_first: job.skip_first,
            chat_template: job.chat_template.as_deref(),
        }
    }
}

/// One row's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Row in the data file, counted from 1.
    pub row: usize,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Which tokens count in a Gram.
    pub counts: Vec<bool>,
    /// Bytes of the row's text (UTF-8) that each token stands for: from where the tokens before it end to where it ends. So a
    /// character that several tokens share is the first one's, and what the tokenizer drops is that of the token after it.
    /// What truncation takes from the start is nobody's, and a token that was added stands for nothing.
    pub bytes: Vec<u32>,
}

/// How many rows are named that cannot be used for one reason.
const NAMED_ROWS: usize = 5;

/// Rows that cannot be used for one reason: how many, and the first few of them.
#[derive(Debug, Default)]
struct Unusable {
    count: usize,
    first: Vec<usize>,
}

impl Unusable {
    fn add(&mut self, row: usize) {
        self.count += 1;
        if self.first.len() < NAMED_ROWS {
            self.first.push(row);
        }
    }

    fn says(&self, what: &str) -> String {
        let rows: Vec<String> = self.first.iter().map(usize::to_string).collect();
        let word = if rows.len() == 1 { "row" } else { "rows" };
        format!("{} row(s) {what} (first: {word} {})", self.count, rows.join(", "))
    }
}

/// Rows that cannot be used, by reason.
#[derive(Debug, Default)]
struct Skipped {
    /// By the column, with the columns that the first of the rows has.
    lacking: IndexMap<String, (Unusable, Vec<String>)>,
    empty: Unusable,
    no_tokens: Unusable,
}

impl Skipped {
    fn reasons(&self) -> Vec<String> {
        let lacking = self.lacking.iter().map(|(column, (rows, _))| rows.says(&format!("lack column {column:?}")));
        let others = [(&self.empty, "are empty"), (&self.no_tokens, "give no token that counts")];
        let others = others.into_iter().filter(|(rows, _)| rows.count > 0).map(|(rows, what)| rows.says(what));
        lacking.chain(others).collect()
    }

    /// Counts by reason, for the manifest.
    fn facts(&self, reporter: &Reporter) {
        let lacking: IndexMap<&str, usize> =
            self.lacking.iter().map(|(column, (rows, _))| (column.as_str(), rows.count)).collect();
        reporter.fact("rows_lacking_column", json!(lacking));
        reporter.fact("rows_empty", json!(self.empty.count));
        reporter.fact("rows_without_tokens", json!(self.no_tokens.count));
    }
}

/// Renders and tokenises every row, or every row of the range, in file order.
///
/// A row that lacks a column, is empty or gives no token that counts is skipped, counted and noted; an error with
/// `strict`. The facts `rows`, `rows_used`, `rows_skipped`, the latter by reason in `rows_lacking_column` (by column),
/// `rows_empty` and `rows_without_tokens`, and `rows_at_max_length`, `tokens` and `tokens_counted` are recorded.
///
/// # Errors
/// When a file, a template or the tokenizer is wrong, a column is in no row of the file, or no token is left of a whole
/// file.
pub fn sequences(spec: &TextSpec<'_>, reporter: &Reporter) -> Result<Vec<Sequence>, TextError> {
    let config = TokenizerConfig::read(spec.model)?;
    let tokenizer = Tokenizer::read(spec.model, &config, spec.add_special_tokens, spec.max_length)?;
    let templates = RowTemplates::compile(spec.rows)?;
    let chat = match spec.rows {
        Rows::Messages(_) => Some(ChatTemplate::find(spec.model, &config, spec.chat_template)?),
        Rows::Text(_) if spec.tokens == TokenMask::Assistant => return Err(TextError::AssistantOfText),
        Rows::Text(_) => None,
    };
    if let Some(chat) = chat.as_ref().filter(|chat| chat.dated() && std::env::var_os("SOURCE_DATE_EPOCH").is_none()) {
        reporter.note(format!("{} may print today's date; SOURCE_DATE_EPOCH fixes it", chat.place()));
    }

    let mut sequences: Vec<Sequence> = Vec::new();
    let mut skipped = Skipped::default();
    let mut seen = std::collections::HashSet::new();
    let (mut total, mut truncated) = (0, 0);
    for item in rows::read(spec.data, spec.range)? {
        let (row, value) = item?;
        total += 1;
        let columns = rows::columns(&value);
        seen.extend(columns.iter().cloned());
        let rendered = match templates.render(&value) {
            Ok(rendered) => rendered,
            Err(RowError::Lacks(column)) => {
                if spec.strict {
                    return Err(lacking(spec.shown, row, column, columns, false));
                }
                skipped.lacking.entry(column).or_insert_with(|| (Unusable::default(), columns)).0.add(row);
                continue;
            }
            Err(RowError::Failed { place, reason }) => {
                return Err(TextError::Render { file: spec.shown.to_path_buf(), row, place, reason });
            }
        };
        if rendered.is_blank() {
            unusable(spec, row, "the row is empty")?;
            skipped.empty.add(row);
            continue;
        }
        let sequence = tokenise(spec, row, rendered, chat.as_ref(), &tokenizer)?;
        if !sequence.counts.contains(&true) {
            unusable(spec, row, "the row gives no token that counts")?;
            skipped.no_tokens.add(row);
            continue;
        }
        truncated += usize::from(spec.max_length == Some(sequence.ids.len()));
        sequences.push(sequence);
    }

    // A column that some rows have is a gap in the data; one that no row has is a mistake in the template.
    for (column, (rows, columns)) in skipped.lacking.iter().filter(|(column, _)| !seen.contains(*column)) {
        if spec.range.is_none() || !is_a_column(spec.data, column)? {
            return Err(lacking(spec.shown, rows.first[0], column.clone(), columns.clone(), true));
        }
    }
    if sequences.is_empty() && spec.range.is_none() {
        let why = if total == 0 { "the file is empty".to_owned() } else { skipped.reasons().join("; ") };
        return Err(TextError::NoTokens { file: spec.shown.to_path_buf(), rows: total, why });
    }
    for reason in skipped.reasons() {
        reporter.note(format!("{}: {reason}, skipped", spec.shown.display()));
    }
    note_double_begin(spec, &sequences, &config, &tokenizer, reporter);
    let counted: usize =
        sequences.iter().map(|sequence| sequence.counts.iter().filter(|&&counts| counts).count()).sum();
    reporter.fact("rows", json!(total));
    reporter.fact("rows_used", json!(sequences.len()));
    reporter.fact("rows_skipped", json!(total - sequences.len()));
    skipped.facts(reporter);
    reporter.fact("rows_at_max_length", json!(truncated));
    reporter.fact("tokens", json!(sequences.iter().map(|sequence| sequence.ids.len()).sum::<usize>()));
    reporter.fact("tokens_counted", json!(counted));
    Ok(sequences)
}

fn unusable(spec: &TextSpec<'_>, row: usize, what: &'static str) -> Result<(), TextError> {
    if spec.strict { Err(TextError::Unusable { file: spec.shown.to_path_buf(), row, what }) } else { Ok(()) }
}

/// Whether any row of the whole file has a column.
fn is_a_column(file: &Path, column: &str) -> Result<bool, TextError> {
    for item in rows::read(file, None)? {
        if rows::columns(&item?.1).iter().any(|name| name == column) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lacking(file: &Path, row: usize, column: String, available: Vec<String>, nowhere: bool) -> TextError {
    let nearest = available
        .iter()
        .map(|name| (strsim::jaro_winkler(name, &column), name))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.clone());
    TextError::Column { file: file.to_path_buf(), row, column, available, nearest, nowhere }
}

/// Tokens of a rendered row, and which of them count.
fn tokenise(
    spec: &TextSpec<'_>,
    row: usize,
    rendered: Rendered,
    chat: Option<&ChatTemplate>,
    tokenizer: &Tokenizer,
) -> Result<Sequence, TextError> {
    let file = || spec.shown.to_path_buf();
    // The text, and what the assistant says in it where only that counts.
    let (text, said) = match (rendered, chat) {
        (Rendered::Turns(turns), Some(chat)) if spec.tokens == TokenMask::Assistant => {
            let marked = chat.render_with_assistant(&turns);
            let (text, said) = marked.map_err(|reason| TextError::Assistant { file: file(), row, reason })?;
            (text, Some(said))
        }
        (Rendered::Turns(turns), Some(chat)) => {
            let place = || chat.place().to_owned();
            let text = chat.render(&turns);
            (text.map_err(|reason| TextError::Render { file: file(), row, place: place(), reason })?, None)
        }
        (Rendered::Text(text), _) => (text, None),
        (Rendered::Turns(_), None) => {
            return Err(TextError::NoChatTemplate { model: spec.model.to_path_buf(), named: Vec::new() });
        }
    };
    let Tokens { ids, characters } = tokenizer.encode(&text)?;
    let counts = |&(start, end): &(usize, usize)| {
        let is_in = |range: &std::ops::Range<usize>| start < end && start < range.end && range.start < end;
        said.as_ref().is_none_or(|said| said.iter().any(is_in))
    };
    let mut counts: Vec<bool> = characters.iter().map(counts).collect();
    counts.iter_mut().take(spec.skip_first).for_each(|counts| *counts = false);
    Ok(Sequence { row, ids, counts, bytes: bytes_of(&text, &characters) })
}

/// Bytes of a text that each token stands for, by the ranges of characters that they come from ([`Sequence::bytes`]).
fn bytes_of(text: &str, characters: &[(usize, usize)]) -> Vec<u32> {
    let at: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let byte = |character: usize| at.get(character).copied().unwrap_or(text.len());
    let of_text = |(start, end): &&(usize, usize)| start < end;
    let mut covered = characters.iter().find(of_text).map_or(0, |(start, _)| byte(*start));
    let bytes = |range: &(usize, usize)| {
        let before = covered;
        if of_text(&range) {
            covered = covered.max(byte(range.1));
        }
        (covered - before) as u32
    };
    characters.iter().map(bytes).collect()
}

/// A template that prints the begin token and a tokenizer that adds it give it twice: legal, and seldom meant.
fn note_double_begin(
    spec: &TextSpec<'_>,
    sequences: &[Sequence],
    config: &TokenizerConfig,
    tokenizer: &Tokenizer,
    reporter: &Reporter,
) {
    let begin = config
        .special_tokens()
        .into_iter()
        .find(|(name, _)| name == "bos_token")
        .and_then(|(_, token)| tokenizer.id(&token));
    let doubled = |sequence: &Sequence| matches!(sequence.ids[..], [a, b, ..] if Some(a) == begin && Some(b) == begin);
    if begin.is_some() && spec.add_special_tokens && !sequences.is_empty() && sequences.iter().all(doubled) {
        reporter.note(
            "every sequence starts with two begin tokens: the chat template prints one and the tokenizer adds one",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_from_the_first_token_on_is_that_of_one_token() {
        // Added, `a`, then a snowman of three bytes in two tokens, then a space that the tokenizer drops, `b`, added.
        assert_eq!(bytes_of("a☃ b", &[(0, 0), (0, 1), (1, 2), (1, 2), (3, 4), (0, 0)]), [0, 1, 3, 0, 2, 0]);
        // Truncated on the left, and on the right.
        assert_eq!(bytes_of("éabc", &[(0, 0), (2, 3), (3, 4)]), [0, 1, 1]);
        assert_eq!(bytes_of("éabc", &[(0, 1), (1, 2)]), [2, 1]);
        assert_eq!(bytes_of("", &[(0, 0)]), [0]);
    }
}
