//! How wide text is, without a font: a reader's own decides, so what stands here is an upper bound for the usual ones.

use unicode_width::UnicodeWidthChar as _;

/// Closes the isolate in which right-to-left text stands ([`crate::report::plain`]).
const POP_ISOLATE: char = '\u{2069}';

/// Width of a line at a font size, both in pixels.
pub(super) fn width(text: &str, size: f64) -> f64 {
    size * text.chars().map(advance).sum::<f64>()
}

/// Width of a character in ems: about what the wider ones of the usual fonts take.
fn advance(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '|' | '.' | ',' | ':' | ';' | '!' | '\'' | ' ' => 0.36,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' | '\\' | '"' => 0.44,
        'm' | 'M' | 'W' | '@' | '%' | '—' | '…' => 1.0,
        'w' | '±' | '=' | '+' | '<' | '>' | '~' => 0.84,
        'A'..='Z' => 0.74,
        ' '..='~' => 0.64,
        _ => match c.width() {
            None | Some(0) => 0.0,
            Some(1) => 0.68,
            Some(_) => 1.05,
        },
    }
}

/// The beginning of `text` with an ellipsis; `None` where all of it fits into `room`.
pub(super) fn cut(text: &str, size: f64, room: f64) -> Option<String> {
    // Room that was made for this text may come out less by what sums of widths round.
    if width(text, size) <= room + 0.1 {
        return None;
    }
    let mut left = room - width("…", size);
    let mut short = String::new();
    for c in text.chars() {
        left -= size * advance(c);
        if left < 0.0 {
            break;
        }
        short.push(c);
    }
    short.truncate(short.trim_end().len());
    short.push('…');
    if text.ends_with(POP_ISOLATE) {
        short.push(POP_ISOLATE);
    }
    Some(short)
}

/// `text` in lines of at most `room`, broken at spaces. A word that is longer than a line stays whole: [`cut`] it.
pub(super) fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" ", size) + width(word, size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_only_where_it_must_be() {
        assert_eq!(cut("RegMean", 10.0, 60.0), None);
        let short = cut("RegMean of everything", 10.0, 60.0).unwrap();
        assert_eq!(short, "RegMean…");
        assert!(width(&short, 10.0) <= 60.0);
        assert_eq!(cut("a", 10.0, 0.0).unwrap(), "…");
    }

    #[test]
    fn cut_right_to_left_text_stays_isolated() {
        let short = cut("\u{2068}שלום שלום שלום\u{2069}", 10.0, 50.0).unwrap();
        assert!(short.starts_with('\u{2068}') && short.ends_with("…\u{2069}"), "{short:?}");
    }

    #[test]
    fn long_remarks_are_broken_at_spaces_and_lose_nothing() {
        let text = "one two three four";
        let lines = wrap(text, 10.0, 60.0);
        assert_eq!(lines, ["one two", "three four"]);
        assert_eq!(lines.join(" "), text);
    }
}
