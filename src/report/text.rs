//! Makes text that others wrote fit for one cell of a table, before any format escapes it.

/// `text` on one line, without what could rearrange the line around it.
///
/// Line breaks, tabs and runs of white space become one space. Control characters, and the bidirectional embeddings,
/// overrides and isolates, become U+FFFD: an override would show the numbers beside it backwards. Text with
/// right-to-left letters is put between U+2068 and U+2069 (first strong isolate), so that it keeps its own order and
/// leaves that of its neighbours alone.
pub(crate) fn plain(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(tame));
    }
    if line.chars().any(is_right_to_left) { format!("\u{2068}{line}\u{2069}") } else { line }
}

/// A character that does nothing to what stands around it.
pub(crate) fn tame(c: char) -> char {
    if c.is_control() || rearranges(c) { char::REPLACEMENT_CHARACTER } else { c }
}

/// Characters that change the direction of what follows them.
fn rearranges(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Letters of right-to-left scripts (the blocks from Hebrew to Arabic Extended-A, their presentation forms, and the
/// right-to-left part of the supplementary plane), and the marks that act like one.
fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{0590}'..='\u{08ff}' | '\u{200f}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'
        | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

/// A piece of a remark.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Words.
    Words(&'a str),
    /// An `http://` or `https://` address, of ASCII letters, digits and `-._~:/?#@!&*+,;=%` only: nothing that could end
    /// a link in any format.
    Link(&'a str),
}

/// Splits a remark at its web addresses. Punctuation at the end of an address belongs to the sentence.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = next_address(rest) {
        let address = &rest[start..];
        let end = address.find(|c: char| !is_address(c)).unwrap_or(address.len());
        let end = address[..end].trim_end_matches(['.', ',', ';', ':', '!', '?']).len();
        if start > 0 {
            pieces.push(Piece::Words(&rest[..start]));
        }
        pieces.push(Piece::Link(&address[..end]));
        rest = &address[end..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Words(rest));
    }
    pieces
}

fn next_address(text: &str) -> Option<usize> {
    ["https://", "http://"]
        .iter()
        .flat_map(|scheme| text.match_indices(scheme).map(move |(at, _)| (at, at + scheme.len())))
        .filter(|(at, host)| {
            let begins_a_word = text[..*at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            begins_a_word && text[*host..].starts_with(|c: char| c.is_ascii_alphanumeric())
        })
        .map(|(at, _)| at)
        .min()
}

fn is_address(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#@!&*+,;=%".contains(c)
}

/// `text` with each character replaced for which `of` has something.
pub(super) fn replace(text: &str, of: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match of(c) {
            Some(instead) => out.push_str(instead),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_without_controls() {
        assert_eq!(plain(" a\r\nb\tc\u{2028}d\u{85}e  f\u{0}\u{1b}[0m"), "a b c d e f\u{fffd}\u{fffd}[0m");
    }

    #[test]
    fn right_to_left_text_is_isolated_and_overrides_are_taken_away() {
        assert_eq!(plain("שלום 12"), "\u{2068}שלום 12\u{2069}");
        assert_eq!(plain("70\u{202e}12"), "70\u{fffd}12");
        assert_eq!(plain("\u{2068}a\u{2069}"), "\u{fffd}a\u{fffd}");
    }

    #[test]
    fn addresses_are_found_and_end_before_the_sentence_does() {
        let found = pieces("see https://a.org/x_y?z=1. Or (http://b.org), <https://c.org>");
        let links: Vec<_> = found.iter().filter(|piece| matches!(piece, Piece::Link(_))).collect();
        assert_eq!(
            links,
            [&Piece::Link("https://a.org/x_y?z=1"), &Piece::Link("http://b.org"), &Piece::Link("https://c.org")]
        );
        assert_eq!(
            pieces("javascript:alert(1) xhttps://a https://"),
            [Piece::Words("javascript:alert(1) xhttps://a https://")]
        );
    }
}
