//! The tokens of models, and those of what is made of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use mergelab_wire::Alignment;
use tokenizers::AddedToken;

use super::error::MergeError;
use super::output::WITHOUT_ADDED;
use crate::text::TextError;
use crate::text::tokenizer::{Tokenizer, TokenizerConfig, extended};

/// How tokens spell a space: tokens of one spelling are never found in a text that is cut up by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// `Ġ`, and other letters for other bytes.
    Bytes,
    /// `▁`.
    Underline,
    /// Not at all, but `##` where there is none.
    Continued,
    /// In a way that is not known here.
    Other,
}

impl Spelling {
    fn of(tokenizer: &Tokenizer) -> Self {
        let json = tokenizer.spelling();
        if json.contains("ByteLevel") {
            Self::Bytes
        } else if json.contains('▁') || json.contains("Metaspace") {
            Self::Underline
        } else if json.contains("WordPiece") {
            Self::Continued
        } else {
            Self::Other
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Bytes => "`Ġ` for a space",
            Self::Underline => "`▁` for a space",
            Self::Continued => "`##` where a word goes on",
            Self::Other => "spaces in a way of their own",
        }
    }
}

/// The tokens of a model.
#[derive(Debug)]
pub(super) struct Tokens {
    ids: HashMap<String, u32>,
    used: HashSet<u32>,
    added: BTreeMap<u32, AddedToken>,
    spelling: Spelling,
}

impl Tokens {
    /// Reads a model's tokenizer; `None` where it has none.
    ///
    /// # Errors
    /// When it has one without a `tokenizer.json`, or that is not a tokenizer.
    pub(super) fn read(model: &Path) -> Result<Option<Self>, TextError> {
        let is_there = |name: &&str| model.join(name).exists();
        if !["tokenizer.json", "tokenizer_config.json"].iter().chain(&WITHOUT_ADDED).any(is_there) {
            return Ok(None);
        }
        let tokenizer = Tokenizer::read(model, &TokenizerConfig::read(model)?, false, None)?;
        let ids = tokenizer.vocabulary();
        let used = ids.values().copied().collect();
        Ok(Some(Self { ids, used, added: tokenizer.added_tokens(), spelling: Spelling::of(&tokenizer) }))
    }

    /// The row of a token in a table of so many.
    pub(super) fn row(&self, token: &str, rows: usize) -> Option<usize> {
        self.ids.get(token).map(|id| *id as usize).filter(|row| *row < rows)
    }

    /// Whether a row is that of a token.
    pub(super) fn uses(&self, row: usize) -> bool {
        u32::try_from(row).is_ok_and(|row| self.used.contains(&row))
    }

    /// One past the last id.
    fn end(&self) -> usize {
        self.used.iter().max().map_or(0, |last| *last as usize + 1)
    }

    /// Its regular tokens and then the added ones, each in the order of their ids, as far as they have rows.
    fn listed(&self, rows: usize) -> impl Iterator<Item = AddedToken> {
        let mut regular: Vec<(u32, &String)> =
            self.ids.iter().map(|(token, id)| (*id, token)).filter(|(id, _)| !self.added.contains_key(id)).collect();
        regular.sort_unstable();
        let regular = regular.into_iter().map(|(id, token)| (id, AddedToken::from(token.clone(), false)));
        let added = self.added.iter().map(|(id, token)| (*id, token.clone()));
        regular.chain(added).filter(move |(id, _)| (*id as usize) < rows).map(|(_, token)| token)
    }
}

/// A model with its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of<'a> {
    /// Its name, for messages.
    pub(super) name: &'a str,
    /// Its tokens.
    pub(super) tokens: &'a Tokens,
    /// The rows of its embedding.
    pub(super) rows: usize,
}

/// The tokens of what is made, by row.
#[derive(Debug)]
pub(super) struct Made {
    /// The token of each row; `None` for padding.
    pub(super) tokens: Vec<Option<String>>,
    /// Tokens that the giver's tokenizer lacks, with their ids.
    pub(super) added: Vec<(u32, AddedToken)>,
    /// The giver's tokenizer with them, where there are any.
    pub(super) json: Option<String>,
}

/// Lays out the rows of the result. Those of the model that gives the tokenizer stay what they are, padding too; new tokens
/// get the ids after its own.
///
/// # Errors
/// When the tokenizers cannot be united.
pub(super) fn lay_out(directory: &Path, giver: Of<'_>, others: &[Of<'_>], how: &Alignment) -> Result<Made, MergeError> {
    let mut known: HashSet<String> = giver.tokens.ids.keys().cloned().collect();
    let mut more = Vec::new();
    for other in others.iter().filter(|_| how.union) {
        for token in other.tokens.listed(other.rows) {
            if known.insert(token.content.clone()) {
                check_spelling(&giver, other, &token)?;
                more.push(token);
            }
        }
    }
    let named = how.tokens.keys().filter(|token| known.insert((*token).clone()));
    more.extend(named.map(|token| AddedToken::from(token.clone(), false)));
    let (json, ids) = if more.is_empty() {
        (None, giver.tokens.ids.clone())
    } else {
        let config = TokenizerConfig::read(directory).map_err(|error| in_model(giver.name, error))?;
        let extended = extended(directory, &config, &more).map_err(|error| in_model(giver.name, error))?;
        (Some(extended.json), extended.ids)
    };
    let mut added = Vec::with_capacity(more.len());
    for token in more {
        let id = ids.get(&token.content).copied().filter(|id| !giver.tokens.used.contains(id));
        let id = id.ok_or_else(|| MergeError::Unite {
            reason: format!("{}'s tokenizer has no number left for the token {:?}", giver.name, token.content),
            hint: "name another model's tokenizer: `tokenizer: NAME`",
        })?;
        added.push((id, token));
    }
    // A tokenizer may know tokens that its model has no rows for: such a text would end with an error.
    let end = added.iter().map(|(id, _)| *id as usize + 1).fold(giver.rows.max(giver.tokens.end()), usize::max);
    let rows = end.next_multiple_of(multiple(&giver, end, how.pad_to_multiple_of));
    let mut tokens = vec![None; rows];
    for (token, id) in ids {
        if let Some(row) = tokens.get_mut(id as usize) {
            *row = Some(token);
        }
    }
    Ok(Made { tokens, added, json })
}

/// What the number of rows is a multiple of. Where nothing is stated and the giver's own table was padded, what that was
/// padded to, as far as its number tells.
fn multiple(giver: &Of<'_>, end: usize, stated: Option<usize>) -> usize {
    const LARGEST: usize = 128;
    match stated {
        Some(stated) => stated.max(1),
        None if end > giver.rows && giver.rows > giver.tokens.end() => {
            1 << giver.rows.trailing_zeros().min(LARGEST.trailing_zeros())
        }
        None => 1,
    }
}

/// A regular token of another way of spelling would have a row that no text ever leads to.
fn check_spelling(giver: &Of<'_>, other: &Of<'_>, token: &AddedToken) -> Result<(), MergeError> {
    let is_added = other.tokens.added.values().any(|added| added.content == token.content);
    let (ours, theirs) = (giver.tokens.spelling, other.tokens.spelling);
    if is_added || ours == theirs || ours == Spelling::Other || theirs == Spelling::Other {
        return Ok(());
    }
    Err(MergeError::Unite {
        reason: format!(
            "tokens of {} spell {}, and those of {} {}: {:?} would never be found in a text",
            giver.name,
            ours.in_words(),
            other.name,
            theirs.in_words(),
            token.content
        ),
        hint: "name one model's tokenizer: `tokenizer: NAME`",
    })
}

/// An error of a model's tokenizer.
pub(super) fn in_model(model: &str, source: TextError) -> MergeError {
    MergeError::Text { model: model.to_owned(), source: Box::new(source) }
}
