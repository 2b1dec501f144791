//! What is left of the machine: slots, memory and GPUs.

use super::machine::Gpu;
use crate::stage::Gpus;

/// What a piece of work asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Bytes of main memory.
    pub(super) memory: u64,
    pub(super) gpus: Gpus,
}

impl Need {
    /// What stages take that come one after the other in one program: of memory as much as the largest. They are of one
    /// suite, so that GPUs are the same for all.
    pub(super) fn of_batch(stages: impl Iterator<Item = Self>) -> Self {
        let larger = |one: Self, other: Self| Self { memory: one.memory.max(other.memory), ..one };
        stages.reduce(larger).unwrap_or(Self { memory: 0, gpus: Gpus::Any(0) })
    }
}

/// What a piece of work was given, to be given back when it is over.
#[derive(Debug)]
pub(super) struct Share {
    memory: u64,
    gpus: Vec<usize>,
}

/// What there is, and what of it is free.
#[derive(Debug)]
pub(super) struct Room {
    slots: usize,
    memory: u64,
    /// Names of all GPUs.
    names: Vec<String>,
    /// Whether each is free.
    free: Vec<bool>,
    working: usize,
}

impl Room {
    pub(super) fn new(slots: usize, memory: u64, gpus: &[Gpu]) -> Self {
        let names: Vec<String> = gpus.iter().map(|gpu| gpu.name.clone()).collect();
        Self { slots: slots.max(1), memory, free: vec![true; names.len()], names, working: 0 }
    }

    /// Whether nothing was given to anybody.
    pub(super) fn is_idle(&self) -> bool {
        self.working == 0
    }

    /// Whether a stage that asks for GPUs gets one.
    pub(super) fn has_for(&self, gpus: Gpus) -> bool {
        match gpus {
            Gpus::Any(count) => count > 0 && !self.names.is_empty(),
            Gpus::This(index) => index < self.names.len(),
        }
    }

    /// Whether there is room now. What alone is over the budget may run alone.
    pub(super) fn fits(&self, need: Need) -> bool {
        self.slots > 0 && (self.is_idle() || need.memory <= self.memory && self.pick(need.gpus).is_some())
    }

    /// Takes what is asked for, or what there is of it.
    pub(super) fn take(&mut self, need: Need) -> Share {
        let share = Share { memory: need.memory.min(self.memory), gpus: self.pick(need.gpus).unwrap_or_default() };
        self.slots -= 1;
        self.memory -= share.memory;
        self.working += 1;
        share.gpus.iter().for_each(|&gpu| self.free[gpu] = false);
        share
    }

    pub(super) fn give_back(&mut self, share: &Share) {
        self.slots += 1;
        self.memory += share.memory;
        self.working -= 1;
        share.gpus.iter().for_each(|&gpu| self.free[gpu] = true);
    }

    /// The GPUs of a share by the names that CUDA knows them by.
    pub(super) fn names(&self, share: &Share) -> Vec<String> {
        share.gpus.iter().map(|&gpu| self.names[gpu].clone()).collect()
    }

    /// Free GPUs; none (an empty list) for who asks for one that is not there, which its program will say.
    fn pick(&self, gpus: Gpus) -> Option<Vec<usize>> {
        match gpus {
            Gpus::Any(count) => {
                let count = count.min(self.names.len());
                let picked: Vec<usize> = (0..self.free.len()).filter(|&gpu| self.free[gpu]).take(count).collect();
                (picked.len() == count).then_some(picked)
            }
            Gpus::This(index) => match self.free.get(index) {
                None => Some(Vec::new()),
                Some(is_free) => is_free.then(|| vec![index]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(gpus: usize) -> Room {
        let gpus: Vec<Gpu> = (0..gpus).map(|gpu| Gpu { name: format!("{}", gpu + 4), memory: None }).collect();
        Room::new(8, 100, &gpus)
    }

    fn need(memory: u64, gpus: Gpus) -> Need {
        Need { memory, gpus }
    }

    #[test]
    fn a_batch_is_admitted_by_its_largest_stage() {
        let mut room = room(2);
        let batch = Need::of_batch([10, 60, 20].into_iter().map(|memory| need(memory, Gpus::Any(1))));
        assert_eq!(batch, need(60, Gpus::Any(1)));
        let _other = room.take(need(50, Gpus::Any(0)));
        assert!(!room.fits(batch));
    }

    #[test]
    fn no_gpu_is_given_to_two_at_once() {
        let mut room = room(3);
        let two = room.take(need(0, Gpus::Any(2)));
        assert_eq!(room.names(&two), ["4", "5"]);
        assert!(!room.fits(need(0, Gpus::Any(2))) && !room.fits(need(0, Gpus::This(1))));
        let one = room.take(need(0, Gpus::This(2)));
        assert_eq!(room.names(&one), ["6"]);
        assert!(!room.fits(need(0, Gpus::Any(1))) && room.fits(need(0, Gpus::Any(0))));
        room.give_back(&two);
        let again = room.take(need(0, Gpus::Any(1)));
        assert_eq!(room.names(&again), ["4"]);
    }

    #[test]
    fn who_asks_for_more_gpus_than_there_are_gets_all_when_they_are_free() {
        let mut room = room(2);
        let one = room.take(need(0, Gpus::Any(1)));
        assert!(!room.fits(need(0, Gpus::Any(8))));
        room.give_back(&one);
        let all = room.take(need(0, Gpus::Any(8)));
        assert_eq!(room.names(&all), ["4", "5"]);
        assert!(room.fits(need(0, Gpus::This(7))), "its program says that there is no such GPU");
    }

    #[test]
    fn what_is_over_the_memory_budget_runs_alone() {
        let mut room = room(0);
        assert!(room.fits(need(200, Gpus::Any(1))));
        let small = room.take(need(10, Gpus::Any(1)));
        assert!(!room.fits(need(91, Gpus::Any(0))) && room.fits(need(90, Gpus::Any(0))));
        room.give_back(&small);
        let big = room.take(need(200, Gpus::Any(1)));
        assert!(!room.fits(need(1, Gpus::Any(0))) && room.fits(need(0, Gpus::Any(0))));
        room.give_back(&big);
        assert!(room.is_idle() && room.fits(need(100, Gpus::Any(0))));
    }
}
