//! From numbers to pixels, and where the marks of an axis go.

/// Larger numbers are drawn as this one, so that no difference of two overflows.
pub(super) const LARGEST: f64 = f64::MAX / 16.0;

/// A number as a table prints it. The table prints numbers only; what is none has no place on an axis.
pub(crate) fn number(printed: &str) -> Option<f64> {
    printed.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number.clamp(-LARGEST, LARGEST))
}

/// The range of numbers that an axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Range {
    /// The narrowest that holds all numbers; `None` without any.
    pub(super) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        numbers.into_iter().fold(None, |range: Option<Self>, number| {
            let Self { low, high } = range.unwrap_or(Self { low: number, high: number });
            Some(Self { low: low.min(number), high: high.max(number) })
        })
    }

    pub(super) fn span(self) -> f64 {
        self.high - self.low
    }

    pub(super) fn with(self, number: f64) -> Self {
        Self { low: self.low.min(number), high: self.high.max(number) }
    }

    pub(super) fn contains(self, number: f64) -> bool {
        (self.low..=self.high).contains(&number)
    }

    /// With some room at both ends, and never empty.
    pub(super) fn padded(self, share: f64) -> Self {
        let pad = if self.span() > 0.0 { self.span() * share } else { (self.low.abs() * 0.05).max(0.05) };
        Self { low: self.low - pad, high: self.high + pad }
    }

    /// Up to the next round number above it, where that makes it longer by at most a `share`.
    pub(super) fn to_next_mark(self, count: usize, share: f64) -> Self {
        let next = self.step(count).map_or(self.high, |step| (self.high / step).ceil() * step);
        if next - self.high <= self.span() * share { Self { high: next, ..self } } else { self }
    }

    /// The distance of about `count` round numbers in it.
    fn step(self, count: usize) -> Option<f64> {
        let rough = self.span() / count as f64;
        let power = 10_f64.powi(rough.log10().floor() as i32);
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough)?;
        (step > 0.0 && step.is_finite()).then_some(step)
    }

    /// Round numbers in it, about `count` of them, as an axis prints them.
    pub(super) fn ticks(self, count: usize) -> Vec<(f64, String)> {
        let Some(step) = self.step(count) else { return Vec::new() };
        let decimals = (0..=17).find(|digits| is_whole(step * 10_f64.powi(*digits))).unwrap_or(17) as usize;
        let (first, last) = ((self.low / step).ceil(), (self.high / step).floor());
        let marks = (0..=count * 2).map(|i| (first + i as f64) * step).take_while(|mark| *mark <= last * step);
        marks.map(|mark| (mark, print(mark, decimals))).collect()
    }
}

fn is_whole(number: f64) -> bool {
    number >= 0.5 && (number - number.round()).abs() < 1e-9
}

/// Fixed as long as that is short; a zero without digits that would say nothing.
fn print(number: f64, decimals: usize) -> String {
    match number {
        0.0 if decimals > 6 => "0".to_owned(),
        // Without the sign that a negative zero has.
        0.0 => format!("{:.decimals$}", 0.0),
        _ if number.abs() >= 1e6 || decimals > 6 => format!("{number:.1e}"),
        _ => format!("{number:.decimals$}"),
    }
}

/// A range of numbers on a line of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    range: Range,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// `range.low` at pixel `from`, `range.high` at `to`.
    pub(super) fn linear(range: Range, from: f64, to: f64) -> Self {
        Self { range, logarithmic: false, from, to }
    }

    /// The same on a logarithmic scale; the range must be above 0.
    pub(super) fn logarithmic(range: Range, from: f64, to: f64) -> Self {
        Self { range: Range { low: range.low.ln(), high: range.high.ln() }, logarithmic: true, from, to }
    }

    /// The pixel of a number.
    pub(super) fn at(&self, number: f64) -> f64 {
        let number = if self.logarithmic { number.ln() } else { number };
        let share = if self.range.span() > 0.0 { (number - self.range.low) / self.range.span() } else { 0.5 };
        self.from + share * (self.to - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(low: f64, high: f64) -> Vec<String> {
        Range { low, high }.ticks(4).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn marks_are_round_numbers_within_the_range() {
        assert_eq!(printed(0.0, 100.0), ["0", "25", "50", "75", "100"]);
        assert_eq!(printed(0.0, 78.3), ["0", "20", "40", "60"]);
        assert_eq!(printed(-0.3, 0.9), ["0.0", "0.5"]);
        assert_eq!(printed(95.1, 98.9), ["96", "97", "98"]);
        assert_eq!(printed(0.0, 1.0), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(printed(0.0, 8e15), ["0", "2.0e15", "4.0e15", "6.0e15", "8.0e15"]);
        assert_eq!(printed(0.0, 3e-9), ["0", "1.0e-9", "2.0e-9", "3.0e-9"]);
        assert!(printed(1.0, 1.0).is_empty());
    }

    #[test]
    fn a_range_that_nearly_reaches_a_round_number_reaches_it() {
        let high = |high| Range { low: 0.0, high }.to_next_mark(4, 0.12).high.to_string();
        assert_eq!([99.5, 100.0, 78.3, 65.0, 0.0].map(high), ["100", "100", "80", "65", "0"]);
    }

    #[test]
    fn the_largest_numbers_have_a_place_too() {
        let most = number("1.7976931348623157e308").unwrap();
        let range = Range::of([-most, most]).unwrap().padded(0.05);
        let scale = Scale::linear(range, 0.0, 100.0);
        assert!((scale.at(0.0) - 50.0).abs() < 1e-9);
        assert!(range.ticks(4).len() > 1);
        assert_eq!((number("inf"), number("NaN"), number("x")), (None, None, None));
    }

    #[test]
    fn a_logarithmic_scale_puts_powers_at_equal_distances() {
        let scale = Scale::logarithmic(Range { low: 0.001, high: 10.0 }, 0.0, 40.0);
        let at = [0.001, 0.01, 0.1, 1.0, 10.0].map(|number| format!("{:.3}", scale.at(number)));
        assert_eq!(at, ["0.000", "10.000", "20.000", "30.000", "40.000"]);
    }
}
