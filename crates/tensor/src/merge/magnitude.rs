//! The largest of many numbers, found without holding them: two counts over their bits.
//!
//! The bits of floats order as the floats do, once those of negative ones are turned round. A first pass counts them by
//! their upper bits, which gives the bin of the k-th largest; a second counts those of that bin by their lower bits, which
//! gives it exactly. Of equal numbers at the edge the first ones stay, so that exactly k do, whatever the number of threads.

use super::error::MergeError;

/// Lower bits, told apart by the second pass.
const LOWER: u32 = 15;

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

    /// Whether a number at a position stays.
    #[inline]
    pub fn keeps(self, number: f32, position: usize) -> bool {
        let order = order(number);
        order > self.edge || order == self.edge && position < self.end
    }
}

/// A number's place among all floats.
#[inline]
fn order(number: f32) -> u32 {
    let bits = number.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The number of a place.
fn at_place(order: u32) -> f32 {
    f32::from_bits(if order >> 31 == 1 { order & !(1 << 31) } else { !order })
}

/// Shows numbers in order, some at a time: the position of the first, and they.
pub type Visit<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// For each `kept` the so many largest of `count` numbers; `each` shows them all, as often as it is asked.
///
/// # Errors
/// What `each` says.
pub fn largest(
    count: usize,
    kept: &[usize],
    each: impl Fn(Visit<'_>) -> Result<(), MergeError>,
) -> Result<Vec<Trim>, MergeError> {
    let inner: Vec<usize> = kept.iter().copied().filter(|kept| (1..count).contains(kept)).collect();
    let mut edges = edges(&inner, &each)?.into_iter();
    let mut trims = Vec::with_capacity(kept.len());
    for kept in kept {
        if !(1..count).contains(kept) {
            trims.push(if *kept == 0 { Trim::NONE } else { Trim::ALL });
            continue;
        }
        let edge = edges.next().expect("there is one for each of the inner numbers");
        let (mut left, mut end) = (edge.staying, usize::MAX);
        // Where not all of the edge's own number stay, it takes a look at which are first.
        if left < edge.equal {
            each(&mut |start, numbers| {
                for (position, number) in (start..).zip(numbers) {
                    if order(*number) == edge.order && left > 0 {
                        left -= 1;
                        end = position + 1;
                    }
                }
            })?;
        }
        trims.push(Trim { edge: edge.order, end });
    }
    Ok(trims)
}

/// The k-th largest number for each k, from 1.
///
/// # Errors
/// What `each` says.
pub fn kth_largest(ks: &[usize], each: impl Fn(Visit<'_>) -> Result<(), MergeError>) -> Result<Vec<f32>, MergeError> {
    Ok(edges(ks, &each)?.into_iter().map(|edge| at_place(edge.order)).collect())
}

/// The smallest number that stays.
struct Edge {
    order: u32,
    /// How many are equal to it, and how many of them stay.
    equal: usize,
    staying: usize,
}

/// The k-th largest numbers; k is from 1 to as many as there are.
fn edges(ks: &[usize], each: &impl Fn(Visit<'_>) -> Result<(), MergeError>) -> Result<Vec<Edge>, MergeError> {
    if ks.is_empty() {
        return Ok(Vec::new());
    }
    let mut upper = vec![0usize; 1 << (32 - LOWER)];
    each(&mut |_, numbers| numbers.iter().for_each(|number| upper[(order(*number) >> LOWER) as usize] += 1))?;
    let bins: Vec<(usize, usize)> = ks.iter().map(|k| kth_from_above(&upper, *k)).collect();
    let mut lower = vec![vec![0usize; 1 << LOWER]; ks.len()];
    each(&mut |_, numbers| {
        for ((bin, _), lower) in bins.iter().zip(&mut lower) {
            for order in numbers.iter().map(|number| order(*number)) {
                if (order >> LOWER) as usize == *bin {
                    lower[(order & ((1 << LOWER) - 1)) as usize] += 1;
                }
            }
        }
    })?;
    let edge = |((k, (bin, above)), lower): ((&usize, &(usize, usize)), &Vec<usize>)| {
        let (rest, within) = kth_from_above(lower, k - above);
        let order = (*bin as u32) << LOWER | rest as u32;
        Edge { order, equal: lower[rest], staying: k - above - within }
    };
    Ok(ks.iter().zip(&bins).zip(&lower).map(edge).collect())
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
        let each = |visit: Visit<'_>| {
            visit(0, &numbers[..2]);
            visit(2, &numbers[2..]);
            Ok(())
        };
        let trims = largest(numbers.len(), counts, each).unwrap();
        let stays = |trim: &Trim| {
            numbers.iter().enumerate().filter(|(at, number)| trim.keeps(**number, *at)).map(|(at, _)| at).collect()
        };
        trims.iter().map(stays).collect()
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
            visit(0, &[-1.0, 2.0, -3.0, 0.5]);
            Ok(())
        };
        assert_eq!(kth_largest(&[1, 2, 3, 4], each).unwrap(), [2.0, 0.5, -1.0, -3.0]);
    }

    #[test]
    fn numbers_that_differ_in_their_last_bit_are_told_apart() {
        let next = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(kept(&[1.0, next, 1.0], &[1]), [[1]]);
    }
}
