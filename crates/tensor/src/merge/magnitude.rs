//! The largest of many numbers, found without holding them: two counts over their bits.
//!
//! The bits of floats order as the floats do, once those of negative ones are turned round. A first pass counts them by
//! their upper bits, which gives the bin of the k-th largest; a second counts those of that bin by their lower bits, which
//! gives it exactly. Of equal numbers at the edge the first ones stay, so that exactly k do, whatever the number of threads.

use std::cell::Cell;

use super::error::MergeError;
use crate::system::vectorized;

/// Lower bits, told apart by the second pass.
const LOWER: u32 = 16;

/// Which of some numbers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Order of the smallest number that stays.
    edge: u32,
    /// Numbers equal to it stay before this position.
    end: usize,
}

impl Trim {
    const ALL: Self = Self { edge: 0, end: usize::MAX };
    const NONE: Self = Self { edge: u32::MAX, end: 0 };

    /// Seen from a position: places count from there.
    #[inline]
    pub fn from(self, start: usize) -> TrimFrom {
        let end = self.end.saturating_sub(start);
        TrimFrom { edge: self.edge, end: u32::try_from(end).unwrap_or(u32::MAX) }
    }
}

/// A [`Trim`] of fewer than 2³² numbers, in a form for vector loops.
#[derive(Clone, Copy, Debug)]
pub struct TrimFrom {
    edge: u32,
    end: u32,
}

impl TrimFrom {
    /// All bits where a number at a place stays, and none where it does not.
    #[inline]
    pub fn mask(self, number: f32, place: u32) -> u32 {
        let order = order(number);
        let above = u32::from(order > self.edge);
        let equal = u32::from(order == self.edge) & u32::from(place < self.end);
        (above | equal).wrapping_neg()
    }
}

/// A value where a mask has all bits, zero where it has none.
#[inline]
pub fn masked(value: f32, mask: u32) -> f32 {
    f32::from_bits(value.to_bits() & mask)
}

/// A number's place among all floats.
#[inline]
fn order(number: f32) -> u32 {
    let bits = number.to_bits();
    // All bits of a negative one are turned, of others the first.
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

/// The number of a place.
fn at_place(order: u32) -> f32 {
    f32::from_bits(if order >> 31 == 1 { order & !(1 << 31) } else { !order })
}

/// Shows numbers of sequences in order, some at a time: which sequence, the position of the first, and they.
pub type Visit<'a> = &'a mut dyn FnMut(usize, usize, &[f32]);

/// For each of some sequences of `count` numbers, and each of the numbers in its `kept`, the so many largest; `each` shows
/// all sequences, as often as it is asked.
///
/// # Errors
/// What `each` says.
pub fn largest(
    count: usize,
    kept: &[Vec<usize>],
    each: impl Fn(Visit<'_>) -> Result<(), MergeError>,
) -> Result<Vec<Vec<Trim>>, MergeError> {
    let is_inner = |kept: &usize| (1..count).contains(kept);
    let inner = |kept: &Vec<usize>| kept.iter().copied().filter(is_inner).collect();
    let inner: Vec<Vec<usize>> = kept.iter().map(inner).collect();
    let edges =
        if inner.iter().all(Vec::is_empty) { Vec::new() } else { edges(&inner, &upper(kept.len(), &each)?, &each)? };
    let mut edges = cut(&edges, &each)?.into_iter();
    let mut trim = |kept: &usize| match kept {
        0 => Trim::NONE,
        kept if is_inner(kept) => edges.next().expect("there is one for each of the inner numbers"),
        _ => Trim::ALL,
    };
    Ok(kept.iter().map(|kept| kept.iter().map(&mut trim).collect()).collect())
}

/// The largest of those numbers of one sequence, none of them negative, that are not zero: this share of them.
///
/// # Errors
/// What `each` says.
pub fn largest_share(share: f64, each: impl Fn(Visit<'_>) -> Result<(), MergeError>) -> Result<Trim, MergeError> {
    let nonzero = Cell::new(0);
    let counted = |visit: Visit<'_>| {
        each(&mut |sequence, start, numbers: &[f32]| {
            let of_tile: u32 = vectorized(|| numbers.iter().map(|number| u32::from(*number != 0.0)).sum());
            nonzero.set(nonzero.get() + of_tile as usize);
            visit(sequence, start, numbers);
        })
    };
    let upper = upper(1, &counted)?;
    let kept = (nonzero.get() as f64 * share) as usize;
    if kept == 0 {
        return Ok(Trim::NONE);
    }
    let edges = edges(&[vec![kept]], &upper, &each)?;
    Ok(cut(&edges, &each)?[0])
}

/// Where not all of an edge's own number stay, which are first.
fn cut(edges: &[Edge], each: &impl Fn(Visit<'_>) -> Result<(), MergeError>) -> Result<Vec<Trim>, MergeError> {
    let mut trims: Vec<Trim> = edges.iter().map(|edge| Trim { edge: edge.order, end: usize::MAX }).collect();
    let mut open: Vec<(&Edge, usize, &mut Trim)> = edges
        .iter()
        .zip(&mut trims)
        .filter(|(edge, _)| edge.staying < edge.equal)
        .map(|(edge, trim)| (edge, edge.staying, trim))
        .collect();
    if !open.is_empty() {
        each(&mut |sequence, start, numbers| {
            for (edge, left, trim) in open.iter_mut().filter(|(edge, left, _)| edge.sequence == sequence && *left > 0) {
                among(
                    numbers,
                    |order| order == edge.order,
                    |place, _| {
                        if *left > 0 {
                            *left -= 1;
                            trim.end = start + place + 1;
                        }
                    },
                );
            }
        })?;
    }
    Ok(trims)
}

/// The k-th largest number of a sequence for each k, from 1.
///
/// # Errors
/// What `each` says.
pub fn kth_largest(ks: &[usize], each: impl Fn(Visit<'_>) -> Result<(), MergeError>) -> Result<Vec<f32>, MergeError> {
    let edges = edges(&[ks.to_vec()], &upper(1, &each)?, &each)?;
    Ok(edges.into_iter().map(|edge| at_place(edge.order)).collect())
}

/// The smallest number that stays of a sequence.
struct Edge {
    sequence: usize,
    order: u32,
    /// How many are equal to it, and how many of them stay.
    equal: usize,
    staying: usize,
}

/// How many numbers of each sequence have which upper bits.
fn upper(sequences: usize, each: &impl Fn(Visit<'_>) -> Result<(), MergeError>) -> Result<Vec<Vec<usize>>, MergeError> {
    let mut upper = vec![vec![0usize; 1 << (32 - LOWER)]; sequences];
    each(&mut |sequence, _, numbers| {
        let upper = &mut upper[sequence];
        for number in numbers {
            upper[(order(*number) >> LOWER) as usize] += 1;
        }
    })?;
    Ok(upper)
}

/// The k-th largest numbers of each sequence; k is from 1 to as many as there are.
fn edges(
    ks: &[Vec<usize>],
    upper: &[Vec<usize>],
    each: &impl Fn(Visit<'_>) -> Result<(), MergeError>,
) -> Result<Vec<Edge>, MergeError> {
    let mut bins = Vec::new();
    for (sequence, ks) in ks.iter().enumerate() {
        let bin = |k| Bin { sequence, k, place: kth_from_above(&upper[sequence], k), lower: vec![0; 1 << LOWER] };
        bins.extend(ks.iter().map(|k| bin(*k)));
    }
    each(&mut |sequence, _, numbers| {
        for Bin { place: (bin, _), lower, .. } in bins.iter_mut().filter(|bin| bin.sequence == sequence) {
            let bin = *bin as u32;
            among(numbers, |order| order >> LOWER == bin, |_, order| lower[(order & ((1 << LOWER) - 1)) as usize] += 1);
        }
    })?;
    let edge = |Bin { sequence, k, place: (bin, above), lower }: Bin| {
        let (rest, within) = kth_from_above(&lower, k - above);
        let order = (bin as u32) << LOWER | rest as u32;
        Edge { sequence, order, equal: lower[rest], staying: k - above - within }
    };
    Ok(bins.into_iter().map(edge).collect())
}

/// The upper bits of a k-th largest number, and what is counted of those that share them.
struct Bin {
    sequence: usize,
    k: usize,
    place: (usize, usize),
    lower: Vec<usize>,
}

/// Shows the few numbers of some whose order is one that is looked for: their places and orders.
fn among(numbers: &[f32], is_one: impl Fn(u32) -> bool, mut found: impl FnMut(usize, u32)) {
    /// Numbers that are looked at together.
    const GROUP: usize = 32;
    let mut place = 0;
    vectorized(|| {
        for group in numbers.chunks(GROUP) {
            if group.iter().fold(false, |any, number| any | is_one(order(*number))) {
                for (place, order) in (place..).zip(group.iter().map(|number| order(*number))) {
                    if is_one(order) {
                        found(place, order);
                    }
                }
            }
            place += group.len();
        }
    });
}

/// The bin of the k-th largest, and how many are in the bins above it.
fn kth_from_above(counts: &[usize], k: usize) -> (usize, usize) {
    let mut above = 0;
    for (bin, count) in counts.iter().enumerate().rev() {
        if above + count >= k {
            return (bin, above);
        }
        above += count;
    }
    unreachable!("there are at least k elements")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(numbers: &[f32], counts: &[usize]) -> Vec<Vec<usize>> {
        let other: Vec<f32> = numbers.iter().rev().copied().collect();
        let each = |visit: Visit<'_>| {
            for (start, end) in [(0, 2), (2, numbers.len())] {
                visit(0, start, &other[start..end]);
                visit(1, start, &numbers[start..end]);
            }
            Ok(())
        };
        let trims = largest(numbers.len(), &[vec![1], counts.to_vec()], each).unwrap();
        assert_eq!(trims[0].len(), 1);
        let stays = |trim: &Trim| {
            // As it is seen from the start, and from a place behind it.
            let all: Vec<bool> =
                (0..).zip(numbers).map(|(place, number)| trim.from(0).mask(*number, place) != 0).collect();
            let later: Vec<bool> =
                (0..).zip(&numbers[1..]).map(|(place, number)| trim.from(1).mask(*number, place) != 0).collect();
            assert_eq!(all[1..], later);
            (0..all.len()).filter(|at| all[*at]).collect()
        };
        trims[1].iter().map(stays).collect()
    }

    #[test]
    fn so_many_of_the_largest_stay_and_of_equal_ones_the_first() {
        let numbers = [0.5, 3.0, 0.5, 1e-20, 0.5, 2.0, 0.0];
        let expected: [&[usize]; 6] = [&[], &[1], &[1, 5], &[0, 1, 5], &[0, 1, 2, 5], &[0, 1, 2, 3, 4, 5, 6]];
        assert_eq!(kept(&numbers, &[0, 1, 2, 3, 4, 7]), expected);
    }

    #[test]
    fn the_kth_largest_is_found_among_negative_ones_too() {
        let each = |visit: Visit<'_>| {
            visit(0, 0, &[-1.0, 2.0, -3.0, 0.5]);
            Ok(())
        };
        assert_eq!(kth_largest(&[1, 2, 3, 4], each).unwrap(), [2.0, 0.5, -1.0, -3.0]);
    }

    #[test]
    fn numbers_that_differ_in_their_last_bit_are_told_apart() {
        let next = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(kept(&[1.0, next, 1.0], &[1]), [[1]]);
    }

    #[test]
    fn of_many_numbers_those_stay_that_sorting_gives() {
        // Some 40 of each, and as many zeros as others.
        let number = |at: usize| if at.is_multiple_of(2) { 0.0 } else { (at * 7919 % 257) as f32 * 1e-3 };
        let numbers: Vec<f32> = (0..10_000).map(number).collect();
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]).then(a.cmp(b)));
        let counts = [1, 77, 2500, 4990, 7501];
        for (count, found) in counts.iter().zip(kept(&numbers, &counts)) {
            let mut expected = order[..*count].to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{count}");
        }
    }

    #[test]
    fn a_share_is_of_the_numbers_that_are_not_zero() {
        let smallest = f32::from_bits(1);
        let numbers = [0.0, 3.0, smallest, 0.0, 2.0, -0.0, 1.0];
        let kept = |share| {
            let trim = largest_share(share, |visit| {
                visit(0, 0, &numbers[..3]);
                visit(0, 3, &numbers[3..]);
                Ok(())
            });
            let trim = trim.unwrap().from(0);
            (0..numbers.len()).filter(|at| trim.mask(numbers[*at], *at as u32) != 0).collect::<Vec<_>>()
        };
        assert_eq!(kept(0.2), [] as [usize; 0]);
        assert_eq!(kept(0.5), [1, 4]);
        assert_eq!(kept(1.0), [1, 2, 4, 6]);
    }
}
