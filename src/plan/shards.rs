//! How the rows of a data set are split into shards.
//!
//! Shards are ranges of rows one after the other, all of one size but the last. The size is `rows / shards`, rounded up to
//! three binary digits (1 to 8, 10, 12, 14, 16, 20, …: by a quarter at most), so that it seldom changes when rows are
//! added at the end: as long as it does not, what was captured of full ranges stays as it is. The last shards get what is
//! left, which may be nothing.

use mergelab_wire::RowRange;

use crate::digest::Digest;

/// The rows of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which rows.
    pub range: RowRange,
    /// Bytes of their lines.
    pub bytes: u64,
    /// Digest of their lines: it decides what is captured of them, wherever in the file they stand.
    pub sha256: Digest,
}

/// The rows of each of `shards` shards.
///
/// # Panics
/// When there are no shards.
pub fn split(rows: u64, shards: usize) -> Vec<RowRange> {
    let shards = shards as u64;
    let size = round_up(rows.div_ceil(shards));
    let range = |index: u64| {
        let first = index.saturating_mul(size).min(rows);
        RowRange { first, count: size.min(rows - first) }
    };
    (0..shards).map(range).collect()
}

/// The next number of three binary digits and zeros after them.
fn round_up(number: u64) -> u64 {
    let digits = u64::BITS - number.leading_zeros();
    let step = 1 << digits.saturating_sub(3);
    number.checked_next_multiple_of(step).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_shard_and_sizes_are_rounded_by_a_quarter_at_most() {
        for rows in (0..300).chain([4095, 4096, 4097, 1_000_003]) {
            for shards in 1..40 {
                let ranges = split(rows, shards);
                assert_eq!(ranges.len(), shards);
                let mut next = 0;
                for range in &ranges {
                    assert_eq!(range.first, next, "{rows} rows, {shards} shards");
                    next += range.count;
                }
                assert_eq!(next, rows, "{shards} shards");
                assert!(ranges[0].count * 4 <= rows.div_ceil(shards as u64) * 5, "{rows} rows, {shards} shards");
            }
        }
    }

    #[test]
    fn rows_added_at_the_end_leave_full_shards_alone() {
        let before = split(10_000, 4);
        assert_eq!(before.iter().map(|range| range.count).collect::<Vec<_>>(), [2560, 2560, 2560, 2320]);
        assert_eq!(split(10_240, 4)[..3], before[..3]);
        assert_eq!(split(12_800, 5)[..3], before[..3], "more shards for more rows");
        assert_ne!(split(10_241, 4)[0], before[0]);
    }

    #[test]
    fn more_shards_than_rows_leave_some_without() {
        assert_eq!(split(2, 4).iter().map(|range| range.count).collect::<Vec<_>>(), [1, 1, 0, 0]);
        assert_eq!(split(9, 8).iter().map(|range| range.count).collect::<Vec<_>>(), [2, 2, 2, 2, 1, 0, 0, 0]);
    }
}
