//! Sequences packed into chunks: laid end to end, without padding.

use tch::{Device, TchError, Tensor};

use crate::model::Span;
use crate::text::Sequence;

/// Tokens at which a chunk is full, on the CPU: products this tall run at full rate, and what comes of them stays in cache.
const CPU_TOKENS: usize = 512;

/// Tokens at which a chunk is full, on a GPU, where products must be taller to fill it.
const CUDA_TOKENS: usize = 8192;

/// Some sequences laid end to end.
#[derive(Debug)]
pub(crate) struct Chunk {
    sequences: Vec<Sequence>,
    /// How many tokens.
    pub(crate) tokens: usize,
    /// Neighbours of equal length, for attention.
    pub(crate) spans: Vec<Span>,
    /// Positions that count; `None` if all do.
    pub(crate) counted: Option<Vec<i64>>,
    /// Positions, among those that count, of first tokens.
    pub(crate) first: Vec<i64>,
}

impl Chunk {
    /// Cuts sequences into chunks: sorted by length (equal ones in file order), full at a number of tokens that the device
    /// decides.
    pub(crate) fn cut(mut sequences: Vec<Sequence>, device: Device) -> Vec<Self> {
        let full = if device == Device::Cpu { CPU_TOKENS } else { CUDA_TOKENS };
        sequences.sort_by_key(|sequence| sequence.ids.len());
        let mut chunks = Vec::new();
        let mut open: Vec<Sequence> = Vec::new();
        let mut tokens = 0;
        for sequence in sequences {
            tokens += sequence.ids.len();
            open.push(sequence);
            if tokens >= full {
                chunks.push(Self::of(std::mem::take(&mut open)));
                tokens = 0;
            }
        }
        if !open.is_empty() {
            chunks.push(Self::of(open));
        }
        chunks
    }

    fn of(sequences: Vec<Sequence>) -> Self {
        let (mut tokens, mut counted, mut first) = (0, Vec::new(), Vec::new());
        let mut spans: Vec<Span> = Vec::new();
        for sequence in &sequences {
            let length = sequence.ids.len();
            match spans.last_mut().filter(|span| span.length == length) {
                Some(span) => span.count += 1,
                None => spans.push(Span { start: tokens, count: 1, length }),
            }
            if sequence.counts.first().is_some_and(|&counts| counts) {
                first.push(counted.len() as i64);
            }
            let positions = (tokens as i64..).zip(&sequence.counts);
            counted.extend(positions.filter_map(|(position, &counts)| counts.then_some(position)));
            tokens += length;
        }
        let counted = (counted.len() < tokens).then_some(counted);
        Self { sequences, tokens, spans, counted, first }
    }

    /// The two halves of a chunk, by sequences; `None` of one that has a single sequence.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.sequences.len() / 2;
        let (left, right) = self.sequences.split_at(middle);
        (middle > 0).then(|| [left, right].map(|half| Self::of(half.to_vec())))
    }

    /// The token ids, `[tokens]`.
    pub(crate) fn ids(&self, device: Device) -> Result<Tensor, TchError> {
        let ids: Vec<i64> = self.sequences.iter().flat_map(|sequence| &sequence.ids).map(|&id| i64::from(id)).collect();
        Tensor::f_from_slice(&ids)?.f_to_device(device)
    }

    /// Of each sequence, in their order: its row, how many of its tokens count, and the bytes of text that these stand for.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        self.sequences.iter().map(|sequence| {
            let counted = sequence.bytes.iter().zip(&sequence.counts).filter(|(_, counts)| **counts);
            let (tokens, bytes) =
                counted.fold((0, 0), |(tokens, sum), (bytes, _)| (tokens + 1, sum + u64::from(*bytes)));
            (sequence.row, tokens, bytes)
        })
    }

    /// The row of the data file that a token comes from.
    pub(crate) fn row_of(&self, token: usize) -> usize {
        let mut end = 0;
        let holds = |sequence: &&Sequence| {
            end += sequence.ids.len();
            token < end
        };
        self.sequences.iter().find(holds).map_or(0, |sequence| sequence.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(row: usize, length: usize, counts: impl Fn(usize) -> bool) -> Sequence {
        let (counts, bytes) = ((0..length).map(counts).collect(), vec![2; length]);
        Sequence { row, ids: vec![row as u32; length], counts, bytes }
    }

    #[test]
    fn neighbours_of_equal_length_are_one_span_and_every_token_knows_its_row() {
        let sequences = vec![sequence(1, 5, |_| true), sequence(2, 3, |_| true), sequence(3, 5, |at| at > 0)];
        let [chunk] = Chunk::cut(sequences, Device::Cpu).try_into().unwrap();
        let span = |start, count, length| Span { start, count, length };
        assert_eq!(chunk.spans, [span(0, 1, 3), span(3, 2, 5)]);
        assert_eq!((chunk.row_of(0), chunk.row_of(3), chunk.row_of(8), chunk.row_of(12)), (2, 1, 3, 3));
        assert_eq!(chunk.counted.as_deref().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]);
        let rows: Vec<_> = chunk.rows().collect();
        assert_eq!(rows, [(2, 3, 6), (1, 5, 10), (3, 4, 8)]);
        // The third row's first token does not count.
        assert_eq!(chunk.first, [0, 3]);
    }

    #[test]
    fn halves_have_all_of_a_chunk_and_a_single_sequence_has_none() {
        let sequences = (1..=5).map(|row| sequence(row, 2, move |at| row != 4 || at == 1)).collect();
        let [chunk] = Chunk::cut(sequences, Device::Cpu).try_into().unwrap();
        let [left, right] = chunk.halves().unwrap();
        assert_eq!((left.tokens, right.tokens), (4, 6));
        assert_eq!(right.counted.as_deref().unwrap(), [0, 1, 3, 4, 5]);
        assert_eq!(right.first, [0, 3]);
        let [single, _] = left.halves().unwrap();
        assert!(single.halves().is_none());
    }
}
