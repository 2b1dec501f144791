//! Pieces of a picture.
//!
//! Attributes hold numbers and words of ours only; what others wrote is text between tags, where it is escaped.

use svg::node::element::Element;
use svg::node::{Node as _, Text};

use super::measure;

/// Colours that are told apart with any colour vision (Okabe and Ito), without those too light for lines on white.
pub(super) const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
/// What was measured.
pub(super) const MEASURED: &str = COLOURS[0];
/// What others published.
pub(super) const PUBLISHED: &str = COLOURS[1];
/// Text and axes.
pub(super) const INK: &str = "#222222";
/// Remarks.
pub(super) const GREY: &str = "#5A5A5A";
/// Lines of a grid.
pub(super) const FAINT: &str = "#E2E2E2";
/// What everything stands on.
pub(super) const PAPER: &str = "#FFFFFF";

/// Font sizes in pixels.
pub(super) const BODY: f64 = 12.0;
pub(super) const SMALL: f64 = 10.5;

/// An element with numbers and words of ours.
pub(super) fn shape(
    name: &'static str,
    numbers: &[(&'static str, f64)],
    words: &[(&'static str, &'static str)],
) -> Element {
    let mut element = Element::new(name);
    for (attribute, number) in numbers {
        element.assign(*attribute, pixels(*number));
    }
    for (attribute, word) in words {
        element.assign(*attribute, *word);
    }
    element
}

/// A tenth of a pixel is as exact as anybody sees.
fn pixels(number: f64) -> String {
    let tenths = (number * 10.0).round() as i64;
    let (whole, rest) = (tenths.abs() / 10, tenths.abs() % 10);
    let sign = if tenths < 0 { "-" } else { "" };
    if rest == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

/// An element with text in it.
pub(super) fn said(name: &'static str, text: &str) -> Element {
    let mut element = Element::new(name);
    element.append(Text::new(fit_for_xml(text)));
    element
}

/// XML has no place for these two, not even escaped; the control characters are gone from a grid's text already.
fn fit_for_xml(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// A horizontal or vertical line.
pub(super) fn line(x1: f64, y1: f64, x2: f64, y2: f64, colour: &'static str, width: f64) -> Element {
    shape("line", &[("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2), ("stroke-width", width)], &[("stroke", colour)])
}

/// How text looks.
#[derive(Clone, Copy)]
pub(super) struct Style {
    size: f64,
    colour: &'static str,
    anchor: &'static str,
    bold: bool,
}

impl Style {
    pub(super) fn body() -> Self {
        Self { size: BODY, colour: INK, anchor: "start", bold: false }
    }

    pub(super) fn small() -> Self {
        Self { size: SMALL, ..Self::body() }
    }

    pub(super) fn remark() -> Self {
        Self { colour: GREY, ..Self::small() }
    }

    pub(super) fn bold(self, bold: bool) -> Self {
        Self { bold, ..self }
    }

    /// In another colour.
    pub(super) fn coloured(self, colour: &'static str) -> Self {
        Self { colour, ..self }
    }

    /// Ends at its place.
    pub(super) fn end(self) -> Self {
        Self { anchor: "end", ..self }
    }

    /// Has its middle at its place.
    pub(super) fn middle(self) -> Self {
        Self { anchor: "middle", ..self }
    }

    /// How wide `text` would be.
    pub(super) fn width(self, text: &str) -> f64 {
        let bold = if self.bold { 1.1 } else { 1.0 };
        bold * measure::width(text, self.size)
    }

    /// Text with its baseline at `y`, cut to `room`, the whole of it then in a `<title>`.
    pub(super) fn write(self, x: f64, y: f64, text: &str, room: f64) -> Element {
        self.write_whole_end(x, y, text, "", room)
    }

    /// The same, with an end that is never cut.
    pub(super) fn write_whole_end(self, x: f64, y: f64, text: &str, end: &str, room: f64) -> Element {
        let room = if self.bold { room / 1.1 } else { room } - measure::width(end, self.size);
        let short = measure::cut(text, self.size, room);
        let mut element = shape("text", &[("x", x), ("y", y), ("font-size", self.size)], &[("fill", self.colour)]);
        if self.anchor != "start" {
            element.assign("text-anchor", self.anchor);
        }
        if self.bold {
            element.assign("font-weight", "bold");
        }
        if short.is_some() {
            element.append(said("title", &format!("{text}{end}")));
        }
        element.append(Text::new(fit_for_xml(short.as_deref().unwrap_or(text)) + end));
        element
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_have_a_tenth_at_most_and_no_minus_zero() {
        assert_eq!([1.0, 2.25, -0.04, -1.5, 0.1 + 0.2].map(pixels), ["1", "2.3", "0", "-1.5", "0.3"]);
    }

    #[test]
    fn what_others_wrote_is_escaped_and_what_is_cut_is_kept_whole() {
        let text = "<script>alert('1')</script> & \u{ffff}";
        let written = Style::body().write(1.0, 2.0, text, 60.0).to_string();
        assert!(!written.contains("<script>") && !written.contains('\u{ffff}'), "{written}");
        assert!(written.contains("<title>&lt;script&gt;alert('1')&lt;/script&gt; &amp; \u{fffd}</title>"), "{written}");
        assert!(written.contains("…"), "{written}");
    }
}
