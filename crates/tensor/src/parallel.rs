//! Work on all cores whose result does not depend on how many there are.
//!
//! One libtorch call that runs in two threads adds up in another order than in one. So libtorch's own threads are off,
//! and callers cut their work into pieces by shape alone; the pieces are handed to as many workers as there are.
//! Pieces never add into shared memory, so neither their number of workers nor their order shows in a result.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Makes libtorch run in one thread when this thread calls it, for it counts threads per calling thread.
pub fn one_thread_here() {
    tch::set_num_threads(1);
}

/// Runs pieces of work on up to `workers` threads.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    workers: usize,
}

impl Pool {
    /// A pool of that many workers (at least one), with libtorch's own threads turned off.
    pub fn new(workers: usize) -> Self {
        one_thread_here();
        Self { workers: workers.max(1) }
    }

    /// How many workers there are.
    pub fn workers(self) -> usize {
        self.workers
    }

    /// Applies `work` to every item; results come in the order of the items.
    ///
    /// # Errors
    /// The first error in the order of items; work that has not begun by then is dropped.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn map<T, R, E>(self, items: Vec<T>, work: impl Fn(T) -> Result<R, E> + Sync) -> Result<Vec<R>, E>
    where
        T: Send,
        R: Send,
        E: Send,
    {
        if self.workers == 1 || items.len() <= 1 {
            return items.into_iter().map(work).collect();
        }
        let count = items.len();
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        let results: Vec<Mutex<Option<Result<R, E>>>> = (0..count).map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..self.workers.min(count) {
                scope.spawn(|| {
                    one_thread_here();
                    while !failed.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(slot) = items.get(index) else { break };
                        let item = slot.lock().expect("a slot is locked once").take().expect("an index is given once");
                        let result = work(item);
                        failed.fetch_or(result.is_err(), Ordering::Relaxed);
                        *results[index].lock().expect("a slot is locked once") = Some(result);
                    }
                });
            }
        });
        let mut done = Vec::with_capacity(count);
        for result in results {
            // Nothing where the work was dropped because a later item failed first; that item's error follows.
            if let Some(result) = result.into_inner().expect("no worker panicked") {
                done.push(result?);
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let squares: Result<Vec<u64>, ()> = Pool::new(3).map((0..100).collect(), |n| Ok(n * n));
        assert_eq!(squares.unwrap(), (0..100).map(|n| n * n).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_of_any_piece_is_the_result() {
        let result: Result<Vec<u64>, String> =
            Pool::new(2).map((0..50).collect(), |n| if n == 17 { Err(format!("item {n}")) } else { Ok(n) });
        assert_eq!(result.unwrap_err(), "item 17");
    }
}
