//! `{out}`, `{inputs.NAME}` and the like in a command's arguments; `{{` and `}}` stand for braces.

use std::fmt::Write as _;

/// A piece of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text, as it is spelled: braces are still doubled.
    Text(&'a str),
    /// The name in a placeholder, and where it starts.
    Name(&'a str),
    /// A brace that opens or closes nothing.
    Stray(&'a str),
}

/// The pieces of an argument, in order.
pub(super) fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        let brace = &rest[at..=at];
        if rest[at + 1..].starts_with(brace) {
            pieces.push(Piece::Text(&rest[..at + 2]));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        match rest[at + 1..].find(['{', '}']) {
            Some(len) if brace == "{" && rest[at + 1 + len..].starts_with('}') => {
                pieces.push(Piece::Name(&rest[at + 1..at + 1 + len]));
                rest = &rest[at + len + 2..];
            }
            _ => {
                pieces.push(Piece::Stray(brace));
                rest = &rest[at + 1..];
            }
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// An argument with its placeholders replaced and its doubled braces made single.
///
/// `value` gives what stands for a name, such as `out` or `inputs.data`.
///
/// # Errors
/// The name of a placeholder for which `value` gives nothing; in a parsed experiment there is none but what
/// [`super::Command::run`] and [`super::Suite::run`] allow.
pub fn substitute(argument: &str, mut value: impl FnMut(&str) -> Option<String>) -> Result<String, UnknownPlaceholder> {
    let mut out = String::with_capacity(argument.len());
    for piece in pieces(argument) {
        match piece {
            Piece::Text(text) => out.push_str(&text.replace("{{", "{").replace("}}", "}")),
            Piece::Name(name) => out.push_str(&value(name).ok_or_else(|| UnknownPlaceholder(name.to_owned()))?),
            Piece::Stray(brace) => return Err(UnknownPlaceholder(brace.to_owned())),
        }
    }
    Ok(out)
}

/// A placeholder that has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no value for the placeholder {{{0}}}")]
pub struct UnknownPlaceholder(pub String);

/// Puts swept values in place of their placeholders; all else stays as it is spelled.
pub(super) fn fill(argument: &str, swept: &[(String, String)]) -> String {
    let mut out = String::with_capacity(argument.len());
    for piece in pieces(argument) {
        match piece {
            Piece::Text(text) | Piece::Stray(text) => out.push_str(text),
            Piece::Name(name) => match swept.iter().find(|(key, _)| key == name) {
                Some((_, value)) => out.push_str(value),
                None => write!(out, "{{{name}}}").expect("a string takes what is written"),
            },
        }
    }
    out
}
