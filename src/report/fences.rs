//! Which lines of a Markdown file are text, and which are inside a fenced code block.
//!
//! Follows `CommonMark` 0.31, section 4.5, as far as fences go: three or more backticks (and none after them on the line) or
//! tildes open one; as many or more of the same, alone on a line, close it; up to three spaces may stand before either. A
//! fence may stand in a block quote or a list item and ends with it.

/// Follows a file line by line.
#[derive(Default)]
pub(super) struct Fences {
    open: Option<Fence>,
    /// Where the contents of the open list items begin, outermost first.
    items: Vec<usize>,
    /// Block quotes around those items.
    quotes: usize,
    /// Whether the last line was of a paragraph.
    paragraph: bool,
    /// The open fence's first line, from 1, and lines read so far.
    opened: usize,
    lines: usize,
}

struct Fence {
    sign: char,
    length: usize,
    quotes: usize,
    /// Indentation of the list item that holds it; 0 outside lists.
    item: usize,
}

impl Fences {
    /// Takes the next line, with or without its end, and says whether it is text: not in a fence and not the edge of one.
    pub(super) fn is_text(&mut self, line: &str) -> bool {
        self.lines += 1;
        if let Some(fence) = &self.open {
            // Further `>` are the code's own.
            let line = Line::of(line, fence.quotes);
            let left = line.quotes < fence.quotes || (line.indent < fence.item && !line.text.is_empty());
            if !left {
                let closed = line.indent < fence.item + 4 && closes(line.text, fence);
                if closed {
                    self.open = None;
                }
                return false;
            }
            self.open = None;
        }
        self.enter(Line::of(line, usize::MAX))
    }

    /// The line, from 1, of the fence that is still open.
    pub(super) fn open(&self) -> Option<usize> {
        self.open.as_ref().map(|_| self.opened)
    }

    /// A line outside fences: follows its list items, and opens the fence that it begins.
    fn enter(&mut self, mut line: Line<'_>) -> bool {
        let after_words = std::mem::replace(&mut self.paragraph, false);
        if after_words && line.quotes <= self.quotes && line.is_words() {
            // The paragraph goes on, and the list items around it with it, however little the line is indented.
            self.paragraph = true;
            return true;
        }
        if line.quotes != self.quotes {
            self.quotes = line.quotes;
            self.items.clear();
        }
        if line.text.is_empty() {
            return true;
        }
        while self.items.last().is_some_and(|item| line.indent < *item) {
            self.items.pop();
        }
        let mut base = self.items.last().copied().unwrap_or(0);
        // More than three spaces in are indented code.
        while line.indent < base + 4 {
            if let Some((sign, length)) = opens(line.text) {
                self.open = Some(Fence { sign, length, quotes: line.quotes, item: base });
                self.opened = self.lines;
                return false;
            }
            let Some(item) = line.item() else {
                self.paragraph = line.is_words();
                break;
            };
            self.items.push(item.indent);
            base = item.indent;
            line = item;
        }
        true
    }
}

/// A line without its indentation.
#[derive(Clone, Copy)]
struct Line<'a> {
    quotes: usize,
    /// In columns, tabs stopping at multiples of four; counted from the last `>`.
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str, most_quotes: usize) -> Self {
        let (mut indent, mut text) = indented(line.trim_end(), 0);
        let mut quotes = 0;
        while let Some(rest) = text.strip_prefix('>').filter(|_| indent < 4 && quotes < most_quotes) {
            quotes += 1;
            (indent, text) = indented(rest.strip_prefix(' ').unwrap_or(rest), 0);
        }
        Self { quotes, indent, text }
    }

    /// Whether it is a thematic break, like `* * *`.
    fn is_rule(self) -> bool {
        let signs = || self.text.chars().filter(|c| !matches!(c, ' ' | '\t'));
        let sign = signs().next().filter(|sign| "*-_".contains(*sign));
        sign.is_some_and(|sign| signs().all(|c| c == sign)) && signs().count() >= 3
    }

    /// Whether it is nothing but words, which go on with a paragraph before them.
    fn is_words(self) -> bool {
        let begins_block = self.text.is_empty() || self.text.starts_with(['#', '<', '>']) || self.is_rule();
        !begins_block && opens(self.text).is_none() && self.item().is_none()
    }

    /// The contents of the list item that the line begins.
    fn item(self) -> Option<Self> {
        if self.is_rule() {
            return None;
        }
        let digits = self.text.bytes().take_while(u8::is_ascii_digit).count();
        let sign = *self.text.as_bytes().get(digits)?;
        let is_item = if digits == 0 { b"-+*".contains(&sign) } else { digits <= 9 && b".)".contains(&sign) };
        let rest = &self.text[if is_item { digits + 1 } else { return None }..];
        let marker = self.indent + digits + 1;
        let (indent, text) = indented(rest, marker);
        match indent - marker {
            _ if text.is_empty() => Some(Self { indent: marker + 1, text, ..self }),
            0 => None,
            // Five or more are one and indented code.
            1..=4 => Some(Self { indent, text, ..self }),
            _ => Some(Self { indent: marker + 1, text: "", ..self }),
        }
    }
}

/// Column of the first character that is no space, starting in `column`, and the text from there.
fn indented(line: &str, mut column: usize) -> (usize, &str) {
    let text = line.trim_start_matches([' ', '\t']);
    for byte in line[..line.len() - text.len()].bytes() {
        column = if byte == b'\t' { column / 4 * 4 + 4 } else { column + 1 };
    }
    (column, text)
}

fn opens(text: &str) -> Option<(char, usize)> {
    let sign = text.chars().next().filter(|sign| matches!(sign, '`' | '~'))?;
    let info = text.trim_start_matches(sign);
    let length = text.len() - info.len();
    (length >= 3 && !(sign == '`' && info.contains('`'))).then_some((sign, length))
}

fn closes(text: &str, fence: &Fence) -> bool {
    text.len() >= fence.length && text.chars().all(|c| c == fence.sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the lines that are text, from 1.
    fn text_lines(text: &str) -> Vec<usize> {
        let mut fences = Fences::default();
        text.lines().enumerate().filter(|(_, line)| fences.is_text(line)).map(|(i, _)| i + 1).collect()
    }

    #[test]
    fn a_fence_ends_with_as_many_of_the_same_sign_or_more() {
        assert_eq!(text_lines("a\n```rust\nb\n~~~\n``\n````\nc"), [1, 7]);
        assert_eq!(text_lines("~~~~\n~~~\n```\n~~~~ x\n~~~~~  \nc"), [6]);
        assert_eq!(text_lines("``` `a` ```\nb"), [1, 2]);
    }

    #[test]
    fn a_fence_without_an_end_lasts_to_the_end_of_the_file() {
        assert_eq!(text_lines("a\n```\nb\nc"), [1]);
    }

    #[test]
    fn an_indented_fence_is_one_and_indented_code_is_none() {
        assert_eq!(text_lines("   ```\nb\n  ```\nc"), [4]);
        assert_eq!(text_lines("a\n\n    ```\nc"), [1, 2, 3, 4]);
        assert_eq!(text_lines("```\n    ```\nc"), Vec::<usize>::new());
    }

    #[test]
    fn a_fence_in_a_list_item_ends_with_it() {
        assert_eq!(text_lines("- a\n\n  ```\n  b\n  ```\n  c"), [1, 2, 6]);
        assert_eq!(text_lines("1. ```sh\n   b\nc"), [3]);
        assert_eq!(text_lines("- - ~~~\n    b\n    ~~~\nc"), [4]);
        assert_eq!(text_lines("1. a\nb\n   ```\n   c\nd"), [1, 2, 5]);
        assert_eq!(text_lines("* * *\n  ```\nb\n```\nc"), [1, 5]);
        assert_eq!(text_lines("10. a\n\n    ```\n    b\n\n    ```\nc"), [1, 2, 7]);
    }

    #[test]
    fn a_fence_in_a_quote_ends_with_it() {
        assert_eq!(text_lines("> ```\n> b\nc"), [3]);
        assert_eq!(text_lines("> ```\n> b\n> ```\n> c"), [4]);
        assert_eq!(text_lines("```\n> ```\n```\nc"), [4]);
        assert_eq!(text_lines("- a\n> b\n  ```\n> c"), [1, 2]);
        assert_eq!(text_lines("> - a\n  ```\nb\n  ```\nc"), [1, 5]);
    }
}
