//! A matrix of low rank that is never made: its factors, and sums of them where they are needed.

use crate::system::vectorized;

/// `scale · left · right`.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `[rows, rank]`.
    left: Vec<f32>,
    /// `[rank, columns]`.
    right: Vec<f32>,
    rank: usize,
    columns: usize,
    scale: f32,
}

impl LowRank {
    /// Of `b` `[out, rank]` and `a` `[rank, in]`: `scale · b · a` `[out, in]`; transposed, `[in, out]`.
    pub(super) fn new((b, a): (Vec<f32>, Vec<f32>), rank: usize, scale: f64, is_transposed: bool) -> Self {
        let (left, right) = if is_transposed { (transpose(&a, rank), transpose_back(&b, rank)) } else { (b, a) };
        let columns = right.len() / rank;
        Self { left, right, rank, columns, scale: scale as f32 }
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.left.len() / self.rank, self.columns]
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> u64 {
        ((self.left.len() + self.right.len()) * size_of::<f32>()) as u64
    }

    /// Adds as many elements as there are values, from `start` of the matrix laid flat on.
    pub(super) fn add(&self, start: usize, values: &mut [f32]) {
        vectorized(|| self.add_up(start, values));
    }

    #[inline(always)]
    fn add_up(&self, mut start: usize, mut values: &mut [f32]) {
        /// Sums that are held at a time: they stay in the nearest cache, whatever the rank.
        const BLOCK: usize = 512;
        let mut sums = [0.0f32; BLOCK];
        while !values.is_empty() {
            let (row, column) = (start / self.columns, start % self.columns);
            let count = (self.columns - column).min(values.len()).min(BLOCK);
            let (now, later) = values.split_at_mut(count);
            let sums = &mut sums[..count];
            sums.fill(0.0);
            for (index, factor) in self.left[row * self.rank..(row + 1) * self.rank].iter().enumerate() {
                let at = index * self.columns + column;
                for (sum, value) in sums.iter_mut().zip(&self.right[at..at + count]) {
                    *sum += factor * value;
                }
            }
            for (value, sum) in now.iter_mut().zip(sums.iter()) {
                *value += sum * self.scale;
            }
            start += count;
            values = later;
        }
    }
}

/// `[rank, n]` as `[n, rank]`.
fn transpose(values: &[f32], rank: usize) -> Vec<f32> {
    let n = values.len() / rank;
    (0..n).flat_map(|row| (0..rank).map(move |index| values[index * n + row])).collect()
}

/// `[n, rank]` as `[rank, n]`.
fn transpose_back(values: &[f32], rank: usize) -> Vec<f32> {
    let n = values.len() / rank;
    (0..rank).flat_map(|index| (0..n).map(move |row| values[row * rank + index])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_of_the_product_is_added_also_of_its_transpose() {
        // b [3, 2], a [2, 4]
        let (b, a) = (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![1.0, 0.0, -1.0, 2.0, 0.5, 1.0, 0.0, -2.0]);
        let product = [2.0, 2.0, -1.0, -2.0, 5.0, 4.0, -3.0, -2.0, 8.0, 6.0, -5.0, -2.0];
        let straight = LowRank::new((b.clone(), a.clone()), 2, 10.0, false);
        assert_eq!(straight.shape(), [3, 4]);
        for (start, end) in [(0, 12), (0, 1), (3, 9), (11, 12), (5, 5)] {
            let mut values = vec![1.0; end - start];
            straight.add(start, &mut values);
            let expected: Vec<f32> = product[start..end].iter().map(|value| 1.0 + 10.0 * value).collect();
            assert_eq!(values, expected, "{start}..{end}");
        }
        let turned = LowRank::new((b, a), 2, 1.0, true);
        assert_eq!(turned.shape(), [4, 3]);
        let mut values = vec![0.0; 12];
        turned.add(0, &mut values);
        assert_eq!(values, [2.0, 5.0, 8.0, 2.0, 4.0, 6.0, -1.0, -3.0, -5.0, -2.0, -2.0, -2.0]);
    }

    #[test]
    fn rows_that_are_wider_than_a_block_are_whole() {
        let (columns, rank) = (1300, 3);
        let a: Vec<f32> = (0..rank * columns).map(|index| (index % 7) as f32).collect();
        let change = LowRank::new((vec![1.0, 2.0, 4.0], a.clone()), rank, 1.0, false);
        let mut values = vec![0.0; columns];
        change.add(0, &mut values);
        let expected = |at: usize| a[at] + 2.0 * a[columns + at] + 4.0 * a[2 * columns + at];
        assert_eq!(values, (0..columns).map(expected).collect::<Vec<_>>());
    }
}
