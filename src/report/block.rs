//! The part of a README that mergelab writes: what stands between two comments.
//!
//! ```text
//! <!-- mergelab:table EXPERIMENT/TABLE -->
//! …
//! <!-- mergelab:end -->
//! ```
//!
//! The name may also be the table's alone; the longer one wins where a file has both. A marker stands alone on its line,
//! behind at most three spaces, and not in a fenced code block, so documentation can show one. Everything outside the
//! markers stays as it is, byte for byte; the block takes the line ends of its first marker.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fences::Fences;
use super::nearest::{listed, nearest, suggestion};

/// A table to be put into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the table.
    pub table: String,
    /// Markdown, with LF.
    pub body: String,
}

impl Block {
    /// `EXPERIMENT/TABLE`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.experiment, self.table)
    }
}

/// A place for a block in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// `EXPERIMENT/TABLE` or `TABLE`, as the file has it.
    pub name: String,
    /// The line of the start marker, from 1.
    pub line: usize,
    /// The bytes between the lines of the two markers.
    inside: Range<usize>,
    /// Whether the start marker's line ends with CR LF.
    crlf: bool,
}

/// Why blocks cannot be replaced; lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A start without an end.
    #[error("line {line}: the block `{name}` has no end")]
    NoEnd {
        /// Line of the start.
        line: usize,
        /// Its name.
        name: String,
    },
    /// An end without a start.
    #[error("line {line}: the end of a block that did not start")]
    NoStart {
        /// Line of the end.
        line: usize,
    },
    /// A start inside a block.
    #[error("line {line}: the block `{name}` starts inside the block `{outer}` of line {outer_line}")]
    Nested {
        /// Line of the inner start.
        line: usize,
        /// Its name.
        name: String,
        /// The block around it.
        outer: String,
        /// Line where that starts.
        outer_line: usize,
    },
    /// One name twice.
    #[error("line {line}: the block `{name}` is there already, at line {first}")]
    Doubled {
        /// Line of the second.
        line: usize,
        /// The name.
        name: String,
        /// Line of the first.
        first: usize,
    },
    /// A comment of ours that is no marker.
    #[error("line {line}: `{text}` is no marker")]
    Malformed {
        /// Its line.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// No place for some blocks.
    #[error("no block for {}", listed(names))]
    Missing {
        /// Their names.
        names: Vec<String>,
    },
    /// A table's name alone, where several experiments have such a table.
    #[error("line {line}: `{name}` may be any of {}", listed(candidates))]
    Ambiguous {
        /// Line of the marker.
        line: usize,
        /// The name.
        name: String,
        /// The whole names.
        candidates: Vec<String>,
    },
    /// A place for a table that does not go there.
    #[error("line {line}: no table of experiment `{experiment}` goes into the block `{name}`{}", suggestion(nearest.as_deref()))]
    Unknown {
        /// Line of the start marker.
        line: usize,
        /// The name.
        name: String,
        /// The experiment that it begins with.
        experiment: String,
        /// The nearest name that goes into this file.
        nearest: Option<String>,
    },
    /// A table that would itself be taken for markers, or would hide the end marker.
    #[error("the table for `{name}` has a marker or an open code fence at its line {line}")]
    Body {
        /// Name of the block.
        name: String,
        /// Line of the table.
        line: usize,
    },
}

impl BlockError {
    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { names } => {
                let lines = names.iter().map(|name| format!("{}\n{END}", start(name)));
                format!("add these two lines where the table shall stand:\n{}", lines.collect::<Vec<_>>().join("\n"))
            }
            Self::NoEnd { .. } | Self::Nested { .. } => format!("end the block with a line `{END}`"),
            Self::NoStart { .. } => format!("remove the line, or start a block with `{}`", start("EXPERIMENT/TABLE")),
            Self::Doubled { .. } => "keep one of the two".to_owned(),
            Self::Malformed { .. } => {
                format!("write `{}` or `{END}`, alone on the line", start("EXPERIMENT/TABLE"))
            }
            Self::Unknown { .. } => "correct the name, add `into:` to the table, or remove the block".to_owned(),
            Self::Ambiguous { candidates, .. } => format!("write the whole name, like `{}`", start(&candidates[0])),
            Self::Body { .. } => "a block can hold only a table without markers of its own".to_owned(),
        }
    }
}

const END: &str = "<!-- mergelab:end -->";

fn start(name: &str) -> String {
    format!("<!-- mergelab:table {name} -->")
}

/// The places for blocks in the text of a file, in its order.
///
/// # Errors
/// The first marker that does not fit: without its other half, nested, doubled, or malformed.
pub fn markers(text: &str) -> Result<Vec<Marker>, BlockError> {
    let mut found: Vec<Marker> = Vec::new();
    let mut open: Option<Marker> = None;
    let mut fences = Fences::default();
    let mut offset = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let (number, begin) = (i + 1, offset);
        offset += line.len();
        if !fences.is_text(line) {
            continue;
        }
        let comment = comment(line, i == 0);
        if comment.is_some() {
            // What follows a marker must not depend on what stood before it, or a new table could change its meaning.
            fences = Fences::default();
        }
        match (comment, open.take()) {
            (None, outer) => open = outer,
            (Some(Comment::Start(name)), None) => {
                if let Some(first) = found.iter().find(|marker| marker.name == name) {
                    return Err(BlockError::Doubled { line: number, name: name.to_owned(), first: first.line });
                }
                let crlf = line.ends_with("\r\n");
                open = Some(Marker { name: name.to_owned(), line: number, inside: offset..offset, crlf });
            }
            (Some(Comment::Start(name)), Some(outer)) => {
                let (name, outer_line, outer) = (name.to_owned(), outer.line, outer.name);
                return Err(BlockError::Nested { line: number, name, outer, outer_line });
            }
            (Some(Comment::End), Some(marker)) => {
                found.push(Marker { inside: marker.inside.start..begin, ..marker });
            }
            (Some(Comment::End), None) => return Err(BlockError::NoStart { line: number }),
            (Some(Comment::Malformed), _) => {
                return Err(BlockError::Malformed { line: number, text: line.trim().to_owned() });
            }
        }
    }
    open.map_or(Ok(found), |marker| Err(BlockError::NoEnd { line: marker.line, name: marker.name }))
}

/// `text` with each of `blocks` in its place. Doing it twice changes nothing more.
///
/// # Errors
/// As [`markers`]; and blocks without a place (all of them), a place of one of these experiments without a block, a short
/// name that fits several blocks, or a body that could not be found again.
pub fn replace(text: &str, blocks: &[Block]) -> Result<String, BlockError> {
    let markers = markers(text)?;
    let mut bodies = BTreeMap::new();
    let mut missing = Vec::new();
    for block in blocks {
        let named = |name: &str| markers.iter().position(|marker| marker.name == name);
        let Some(at) = named(&block.name()).or_else(|| named(&block.table)) else {
            missing.push(block.name());
            continue;
        };
        check(block)?;
        if let Some(other) = bodies.insert(at, block) {
            let (line, name) = (markers[at].line, markers[at].name.clone());
            return Err(BlockError::Ambiguous { line, name, candidates: vec![other.name(), block.name()] });
        }
    }
    if !missing.is_empty() {
        return Err(BlockError::Missing { names: missing });
    }
    for (at, Marker { name, line, .. }) in markers.iter().enumerate() {
        // A table that is gone would stand there for ever; those of other experiments are not ours to judge.
        let owner = name.split_once('/').and_then(|(owner, _)| blocks.iter().find(|block| block.experiment == owner));
        if let Some(Block { experiment, .. }) = owner.filter(|_| !bodies.contains_key(&at)) {
            let nearest = nearest(name, &blocks.iter().map(Block::name).collect::<Vec<_>>());
            return Err(BlockError::Unknown {
                line: *line,
                name: name.clone(),
                experiment: experiment.clone(),
                nearest,
            });
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, block) in bodies {
        let Marker { inside, crlf, .. } = &markers[at];
        out += &text[copied..inside.start];
        let eol = if *crlf { "\r\n" } else { "\n" };
        // Blank lines, since some renderers take a table right behind a comment for a part of it.
        for line in std::iter::once("").chain(block.body.lines()).chain([""]) {
            out += line;
            out += eol;
        }
        copied = inside.end;
    }
    Ok(out + &text[copied..])
}

/// Whether the end of a block is found again behind this body.
fn check(block: &Block) -> Result<(), BlockError> {
    let mut fences = Fences::default();
    for (i, line) in block.body.lines().enumerate() {
        if fences.is_text(line) && comment(line, false).is_some() {
            return Err(BlockError::Body { name: block.name(), line: i + 1 });
        }
    }
    fences.open().map_or(Ok(()), |line| Err(BlockError::Body { name: block.name(), line }))
}

enum Comment<'a> {
    Start(&'a str),
    End,
    Malformed,
}

/// What a line of text is to us; `None` for all that is not a comment of ours.
fn comment(line: &str, first: bool) -> Option<Comment<'_>> {
    let line = if first { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
    let unindented = line.trim_start_matches(' ');
    if line.len() - unindented.len() > 3 {
        return None;
    }
    let inside = unindented.strip_prefix("<!--")?.trim_start().strip_prefix("mergelab:")?;
    let Some(inside) = inside.trim_end().strip_suffix("-->") else { return Some(Comment::Malformed) };
    let words: Vec<&str> = inside.split_whitespace().collect();
    Some(match words[..] {
        ["end"] => Comment::End,
        ["table", name] if is_name(name) => Comment::Start(name),
        _ => Comment::Malformed,
    })
}

/// `TABLE` or `EXPERIMENT/TABLE`.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('/');
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    parts.by_ref().take(2).all(plain) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(experiment: &str, table: &str, body: &str) -> Block {
        Block { experiment: experiment.to_owned(), table: table.to_owned(), body: body.to_owned() }
    }

    fn refused(text: &str) -> String {
        let error = replace(text, &[block("x", "main", "T\n")]).unwrap_err();
        format!("{error}\nhint: {}", error.hint())
    }

    #[test]
    fn a_block_is_replaced_and_nothing_else() {
        let text = "# A\n<!-- mergelab:table x/main -->\nold\n<!-- mergelab:end -->\nB";
        let new = replace(text, &[block("x", "main", "| T |\n")]).unwrap();
        assert_eq!(new, "# A\n<!-- mergelab:table x/main -->\n\n| T |\n\n<!-- mergelab:end -->\nB");
        assert_eq!(replace(&new, &[block("x", "main", "| T |\n")]).unwrap(), new);
    }

    #[test]
    fn crlf_bom_and_a_missing_final_newline_are_kept() {
        let text = "\u{feff}<!--mergelab:table main-->\r\n<!-- mergelab:end -->";
        let new = replace(text, &[block("x", "main", "a\nb\n")]).unwrap();
        assert_eq!(new, "\u{feff}<!--mergelab:table main-->\r\n\r\na\r\nb\r\n\r\n<!-- mergelab:end -->");
    }

    #[test]
    fn markers_in_code_are_text() {
        let sample = "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n";
        let indented = sample.replace("<!--", "    <!--");
        let text =
            format!("```md\n{sample}```\n  ~~~~\n~~~\n{sample}~~~~\n{indented}`<!-- mergelab:end -->`\n{sample}");
        let found = markers(&text).unwrap();
        assert_eq!(found.iter().map(|marker| marker.line).collect::<Vec<_>>(), [13]);
    }

    #[test]
    fn the_whole_name_wins_over_the_short_one() {
        let text = "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n<!-- mergelab:table x/main -->\n<!-- mergelab:end -->\n";
        let new = replace(text, &[block("x", "main", "X"), block("y", "main", "Y")]).unwrap();
        assert_eq!(
            new,
            "<!-- mergelab:table main -->\n\nY\n\n<!-- mergelab:end -->\n\
             <!-- mergelab:table x/main -->\n\nX\n\n<!-- mergelab:end -->\n"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_line_and_the_way_out() {
        let start = "<!-- mergelab:table x/main -->\n";
        let end = "<!-- mergelab:end -->\n";
        let cases = [
            start.to_owned(),
            format!("a\n{end}"),
            format!("{start}<!-- mergelab:table y -->\n{end}"),
            format!("{start}{end}\n{start}{end}"),
            format!("{start}{end}<!-- mergelab:table -->\n"),
            format!("{start}{end}<!-- mergelab:end --> x\n"),
            format!("{start}{end}<!-- mergelab:table a/b/c -->\n"),
            format!("{start}```\n{end}```\n"),
            format!("{start}{end}<!-- mergelab:table x/mian -->\n{end}"),
            "nothing\n".to_owned(),
        ];
        insta::assert_snapshot!(cases.iter().map(|text| refused(text)).collect::<Vec<_>>().join("\n\n"));
    }

    #[test]
    fn a_short_name_that_fits_two_blocks_is_refused() {
        let text = "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n";
        let error = replace(text, &[block("x", "main", ""), block("y", "main", "")]).unwrap_err();
        assert_eq!(error.to_string(), "line 1: `main` may be any of `x/main`, `y/main`");
    }

    #[test]
    fn a_body_that_would_hide_the_end_is_refused() {
        let text = "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n";
        for body in ["a\n```\nb", "a\n<!-- mergelab:end -->\n"] {
            let error = replace(text, &[block("x", "main", body)]).unwrap_err();
            assert_eq!(error, BlockError::Body { name: "x/main".to_owned(), line: 2 }, "{body}");
        }
    }

    /// Text of the pieces that matter here, and of anything else.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("```\n".to_owned()),
            Just("~~~~\r\n".to_owned()),
            Just("- ```\n".to_owned()),
            Just("   ".to_owned()),
            Just("> ".to_owned()),
            Just("<!-- mergelab:table main -->\n".to_owned()),
            Just("<!-- mergelab:table x/main -->\r\n".to_owned()),
            Just("<!-- mergelab:end -->\n".to_owned()),
            any::<String>(),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn text_outside_the_markers_is_never_changed(before in text(), old in text(), after in text(), body in "[a-z|\n]{0,20}") {
            let text = format!("{before}\n<!-- mergelab:table x/main -->\n{old}\n<!-- mergelab:end -->\n{after}");
            let blocks = [block("x", "main", &body)];
            // Where the text around makes the markers something else, it is refused: no text comes out at all.
            if let Ok(new) = replace(&text, &blocks) {
                let (outside, kept) = (markers(&text).unwrap(), markers(&new).unwrap());
                prop_assert_eq!(outside.len(), kept.len());
                prop_assert_eq!(replace(&new, &blocks).unwrap(), new.clone());
                let at = outside.iter().position(|m| m.name == "x/main").or_else(|| outside.iter().position(|m| m.name == "main"));
                let at = at.expect("it was replaced");
                prop_assert_eq!(&text[..outside[at].inside.start], &new[..kept[at].inside.start]);
                prop_assert_eq!(&text[outside[at].inside.end..], &new[kept[at].inside.end..]);
            }
        }

        #[test]
        fn any_text_around_a_block_is_kept(before in "[^`~<>]{0,40}", after in any::<String>()) {
            prop_assume!(!after.contains("mergelab"));
            // Text that opens a list item can hold the marker; it stays one.
            let marked = format!("{before}\n<!-- mergelab:table main -->\nold\n<!-- mergelab:end -->\n{after}");
            let new = replace(&marked, &[block("x", "main", "T\n")]).unwrap();
            let expected = format!("{before}\n<!-- mergelab:table main -->\n\nT\n\n<!-- mergelab:end -->\n{after}");
            prop_assert_eq!(new, expected);
        }
    }
}
