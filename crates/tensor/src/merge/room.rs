//! How the memory budget is kept while linear systems are worked.
//!
//! Results are the same bytes whatever the budget: matrices are made in strips and weights are solved in blocks of rows, both
//! cut by shape alone, since a product over another number of rows may round in another way. What follows the budget is
//! how many strips and blocks are worked side by side, and whether the Grams that the objective is taken on are held or
//! read again for every block.
//!
//! The figures are upper bounds on what the code holds at a time. On a GPU the matrices are not in main memory, which is
//! what a budget is of.

use tch::{Device, Kind};

use super::error::MergeError;
use super::method::Context;
use super::solve::{BLOCK_ROWS, Group, SAMPLED_ROWS};
use super::stream::PROGRAM;
use crate::linalg::{SolveError, TILE, kept};
use crate::parallel::Pool;

/// Rows of a strip of a matrix.
const STRIP: u64 = 512;

/// What a system is made of, as far as its memory goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Columns of the weights.
    pub(super) width: usize,
    /// Models of the merge.
    pub(super) models: usize,
    /// Rows of the tallest block.
    pub(super) rows: usize,
    /// Rows of every model that are held in fp64 beside the system.
    pub(super) sampled: usize,
    /// Type of the average.
    pub(super) wide: Kind,
}

impl Load {
    /// Bytes of a factored system with its right-hand side, in fp32.
    fn factored(&self) -> u64 {
        self.models as u64 * self.gram() + 4 * (TILE * self.width) as u64
    }

    /// Bytes of a Gram that is held, in fp32.
    pub(super) fn gram(&self) -> u64 {
        4 * kept(self.width) as u64
    }

    /// Bytes that a worker takes to make a strip of a matrix in fp64 at the most: a Gram's part as it is read and as fp64,
    /// and the sum.
    fn strip(&self) -> u64 {
        20 * STRIP * self.width as u64
    }

    /// Bytes of the rows that are held: those of all models, their mean, and the differences from it.
    pub(super) fn sample(&self) -> u64 {
        (8 * self.sampled * self.width * 2 * self.models) as u64
    }

    /// Bytes that a worker takes for so many rows, solved in `kind`: those of all models, their mean and differences; the
    /// right-hand side, the solution and what a solve leaves on the way; the merged rows, their rounding, and a product with a Gram.
    pub(super) fn block(&self, rows: usize, kind: Kind) -> u64 {
        let size = |kind: Kind| kind.elt_size_in_bytes();
        let passing = if kind == Kind::Float { 4 } else { 8 };
        let wide = size(self.wide) * (self.models + 5);
        let solving = size(kind) * (self.models - 1 + passing);
        ((wide + solving + 16) * rows * self.width) as u64
    }

    /// Bytes of the least that an fp32 solve with one worker can do with, the program included.
    pub(super) fn least(&self) -> u64 {
        let strip = 4 * STRIP * self.width as u64;
        PROGRAM + self.factored() + self.sample() + self.block(self.rows, Kind::Float).max(strip) + strip
    }
}

/// Bytes that systems may take; none where there is no budget for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room(Option<u64>);

impl Room {
    /// What a merge's budget leaves beside the program.
    pub(super) fn of(context: &Context<'_>) -> Self {
        let budget = context.memory.filter(|_| context.device == Device::Cpu);
        Self(budget.map(|budget| budget.saturating_sub(PROGRAM)))
    }

    /// What is left beside so many bytes.
    pub(super) fn beside(self, bytes: u64) -> Self {
        Self(self.0.map(|room| room.saturating_sub(bytes)))
    }

    /// In bytes.
    pub(super) fn bytes(self) -> Option<u64> {
        self.0
    }

    /// Workers for making a system's matrices: as many as have a strip each beside an fp32 factor and right-hand side; one
    /// at least.
    pub(super) fn makers(self, pool: Pool, load: &Load) -> Pool {
        self.beside(load.factored()).share(pool, load.strip()).unwrap_or_else(|| Pool::new(1))
    }

    /// Whether so many Grams may be held as well, without a worker less.
    pub(super) fn holds(self, pool: Pool, load: &Load, grams: usize, each: u64) -> bool {
        self.0.is_none_or(|room| grams as u64 * load.gram() + pool.workers() as u64 * each <= room)
    }

    /// As many workers as there is room for, each of which takes so many bytes.
    ///
    /// # Errors
    /// When there is no room for one.
    pub(super) fn workers(self, pool: Pool, load: &Load, each: u64) -> Result<Pool, SolveError> {
        let what = "a block of rows beside its system,";
        self.share(pool, each).ok_or(SolveError::Memory {
            what,
            width: load.width,
            needed: each,
            left: self.0.unwrap_or(u64::MAX),
        })
    }

    fn share(self, pool: Pool, each: u64) -> Option<Pool> {
        let Some(room) = self.0 else { return Some(pool) };
        let workers = (room / each.max(1)).min(pool.workers() as u64) as usize;
        (workers > 0).then(|| Pool::new(workers))
    }
}

/// Refuses a budget that no way of working the widest system would keep.
///
/// # Errors
/// Names the first system that there is no room for.
pub(super) fn check(context: &Context<'_>, groups: &[Group]) -> Result<(), MergeError> {
    let Some(budget) = context.memory.filter(|_| context.device == Device::Cpu) else { return Ok(()) };
    for group in groups {
        let load = group.load(context)?;
        let needed = load.least();
        if needed > budget {
            let module = group.module().to_owned();
            return Err(MergeError::SystemMemory { module, width: load.width, budget, needed });
        }
    }
    Ok(())
}

/// Bytes that the widest of the systems of these weights takes at the least, the program included, where their Grams are not
/// there yet; refused where the budget is less.
///
/// # Errors
/// Names the first weight whose system there is no room for.
pub(super) fn least(context: &Context<'_>, tensors: &[String]) -> Result<u64, MergeError> {
    let mut least = 0;
    for tensor in tensors {
        let shape = context.sources.shape(tensor)?;
        let (rows, width) = (shape[0].min(BLOCK_ROWS), *shape.last().expect("weights have sides"));
        let load =
            Load { width, models: context.sources.models.len(), rows, sampled: SAMPLED_ROWS, wide: Kind::Double };
        let needed = load.least();
        if let Some(budget) = context.memory.filter(|budget| context.device == Device::Cpu && *budget < needed) {
            return Err(MergeError::SystemMemory { module: tensor.clone(), width, budget, needed });
        }
        least = needed.max(least);
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { width: 1024, models: 3, rows: 512, sampled: 16, wide: Kind::Float };

    #[test]
    fn a_smaller_room_first_holds_no_grams_then_has_fewer_workers_and_then_none() {
        let (pool, each) = (Pool::new(4), LOAD.block(512, Kind::Float));
        let seen = |room: u64| {
            let room = Room(Some(room));
            let workers = room.workers(pool, &LOAD, each).map(Pool::workers);
            (room.holds(pool, &LOAD, 3, each), workers.ok())
        };
        let grams = 3 * LOAD.gram();
        assert_eq!(seen(4 * each + grams), (true, Some(4)));
        assert_eq!(seen(4 * each + grams - 1), (false, Some(4)));
        assert_eq!(seen(4 * each - 1), (false, Some(3)));
        assert_eq!(seen(each), (false, Some(1)));
        assert_eq!(seen(each - 1), (false, None));
        let none = Room(None);
        assert!(
            none.holds(pool, &LOAD, 100, u64::MAX / 8) && none.workers(pool, &LOAD, u64::MAX).unwrap().workers() == 4
        );
    }

    #[test]
    fn the_least_grows_with_the_square_of_the_width_and_with_the_models() {
        let least = |load: Load| load.least() - PROGRAM;
        let wide = least(Load { width: 2048, ..LOAD });
        assert!(wide > 2 * least(LOAD) && wide < 4 * least(LOAD));
        assert!(least(Load { models: 4, ..LOAD }) > least(LOAD) + LOAD.gram());
    }
}
