//! Sums over the elements of two tensors.

use mergelab_wire::{LargestEntry, Sums};

use crate::merge::figures::finite;
use crate::system::vectorized;

/// Sums that go on side by side, so that an addition does not wait for the one before.
const LANES: usize = 8;

/// Sums over some elements of a tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Piece {
    squares: [f64; 2],
    products: f64,
    difference: f64,
    differing: u64,
    not_finite: [u64; 2],
    /// The first position of the largest difference, and what stands there.
    pub(super) largest: Option<(usize, [f64; 2])>,
}

impl Piece {
    /// Adds as many elements of each, the first of them at `start` of the tensor laid flat. What is not finite is counted, and
    /// becomes zero on both sides.
    pub(super) fn tile(&mut self, a: &mut [f64], b: &mut [f64], start: usize) {
        let is_finite = |values: &[f64]| vectorized(|| values.iter().fold(true, |all, value| all & value.is_finite()));
        if !is_finite(a) || !is_finite(b) {
            self.set_aside(a, b);
        }
        let lanes = vectorized(|| Lanes::of(a, b));
        let [squares_a, squares_b, products, difference] = lanes.sums.map(|sums| sums.iter().sum::<f64>());
        self.squares[0] += squares_a;
        self.squares[1] += squares_b;
        self.products += products;
        self.difference += difference;
        self.differing += lanes.differing.iter().sum::<u64>();
        let most = lanes.most.iter().fold(0.0, |most: f64, lane| most.max(*lane));
        if most > self.most() {
            let at = a.iter().zip(b.iter()).position(|(a, b)| (b - a).abs() >= most);
            self.largest = at.map(|at| (start + at, [a[at], b[at]]));
        }
    }

    /// Adds what comes later in the tensor.
    pub(super) fn add(&mut self, later: &Self) {
        for side in 0..2 {
            self.squares[side] += later.squares[side];
            self.not_finite[side] += later.not_finite[side];
        }
        self.products += later.products;
        self.difference += later.difference;
        self.differing += later.differing;
        if later.most() > self.most() {
            self.largest = later.largest;
        }
    }

    /// The largest difference; zero where there is none.
    fn most(&self) -> f64 {
        self.largest.map_or(0.0, |(_, [a, b])| (b - a).abs())
    }

    /// What is told of a tensor of so many elements.
    pub(super) fn sums(&self, elements: u64, largest: Option<LargestEntry>) -> Sums {
        Sums {
            squares: self.squares.map(finite),
            products: finite(self.products),
            difference: finite(self.difference),
            elements,
            differing: self.differing,
            not_finite: self.not_finite,
            largest,
        }
    }

    fn set_aside(&mut self, a: &mut [f64], b: &mut [f64]) {
        for (a, b) in a.iter_mut().zip(b.iter_mut()) {
            let values = [*a, *b];
            if values.iter().all(|value| value.is_finite()) {
                continue;
            }
            for (count, value) in self.not_finite.iter_mut().zip(values) {
                *count += u64::from(!value.is_finite());
            }
            let is_same = values[0].to_bits() == values[1].to_bits() || values.iter().all(|value| value.is_nan());
            self.differing += u64::from(!is_same);
            (*a, *b) = (0.0, 0.0);
        }
    }
}

/// Sums of every eighth element each.
#[derive(Default)]
struct Lanes {
    /// `a²`, `b²`, `a b`, `(b - a)²`.
    sums: [[f64; LANES]; 4],
    most: [f64; LANES],
    differing: [u64; LANES],
}

impl Lanes {
    #[inline]
    fn of(a: &[f64], b: &[f64]) -> Self {
        let mut lanes = Self::default();
        let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in whole_a.iter().zip(whole_b) {
            lanes.add(a, b);
        }
        // Zeros add nothing to any of the sums.
        let padded = |rest: &[f64]| std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(0.0));
        lanes.add(&padded(rest_a), &padded(rest_b));
        lanes
    }

    #[inline]
    fn add(&mut self, a: &[f64; LANES], b: &[f64; LANES]) {
        for lane in 0..LANES {
            let (a, b) = (a[lane], b[lane]);
            let difference = b - a;
            self.sums[0][lane] += a * a;
            self.sums[1][lane] += b * b;
            self.sums[2][lane] += a * b;
            self.sums[3][lane] += difference * difference;
            self.most[lane] = self.most[lane].max(difference.abs());
            self.differing[lane] += u64::from(difference != 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(a: &[f64], b: &[f64]) -> Piece {
        let mut piece = Piece::default();
        piece.tile(&mut a.to_vec(), &mut b.to_vec(), 100);
        piece
    }

    #[test]
    fn sums_are_those_of_the_elements() {
        let piece = of(&[1.0, -2.0, 3.0], &[1.0, 2.0, 5.0]);
        let expected = Piece {
            squares: [14.0, 30.0],
            products: 12.0,
            difference: 20.0,
            differing: 2,
            not_finite: [0, 0],
            largest: Some((101, [-2.0, 2.0])),
        };
        assert_eq!(piece, expected);
        // 0.1 + 0.2 is not 0.3; a sum of squares of differences sees it where one of norms would not.
        assert!(of(&[0.1 + 0.2], &[0.3]).difference > 0.0);
    }

    #[test]
    fn what_is_not_finite_is_counted_and_not_summed() {
        const NAN: f64 = f64::NAN;
        const INF: f64 = f64::INFINITY;
        let piece = of(&[NAN, INF, INF, 1.0, NAN, 2.0], &[NAN, INF, -INF, NAN, 4.0, 2.5]);
        assert_eq!((piece.squares, piece.difference, piece.products), ([4.0, 6.25], 0.25, 5.0));
        // The same: NaN and NaN, the two infinities of one sign.
        assert_eq!((piece.not_finite, piece.differing), ([4, 4], 4));
        assert_eq!(piece.largest, Some((105, [2.0, 2.5])));
        assert_eq!(of(&[NAN; 20], &[NAN; 20]), Piece { not_finite: [20, 20], ..Piece::default() });
    }

    #[test]
    fn of_equal_differences_the_first_is_the_largest_wherever_pieces_end() {
        let (a, b) = ([0.0; 40], std::array::from_fn::<f64, 40, _>(|at| if at == 9 || at == 30 { -1.0 } else { 0.5 }));
        assert_eq!(of(&a, &b).largest, Some((109, [0.0, -1.0])));
        let mut whole = of(&a[..20], &b[..20]);
        let mut later = Piece::default();
        later.tile(&mut a[20..].to_vec(), &mut b[20..].to_vec(), 120);
        whole.add(&later);
        assert_eq!((whole.largest, whole.differing), (Some((109, [0.0, -1.0])), 40));
        assert_eq!((whole.difference, whole.squares), (2.0 + 38.0 * 0.25, [0.0, 2.0 + 38.0 * 0.25]));
    }

    #[test]
    fn a_sum_that_is_too_large_is_told_as_none_and_zeros_have_sums() {
        let sums = of(&[1e200, 1.0], &[0.0, 1.0]).sums(2, None);
        assert_eq!((sums.squares, sums.difference, sums.products), ([None, Some(1.0)], None, Some(1.0)));
        assert_eq!(of(&[], &[]), Piece::default());
        assert_eq!(of(&[0.0, -0.0], &[-0.0, 0.0]), Piece::default());
    }
}
