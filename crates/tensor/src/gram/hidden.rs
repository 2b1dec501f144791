//! The hidden states of all tokens between two layers: in memory as far as they may, the others in a file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tch::{Device, Kind, Tensor};

use super::error::GramError;
use crate::failure::FileError;

/// One slot a chunk, `[tokens, hidden]` each. Which chunks are kept where is settled at the start; their sizes never change.
#[derive(Debug)]
pub(crate) struct Hidden {
    slots: Vec<Slot>,
    width: i64,
    kind: Kind,
    /// Where chunks are computed on.
    device: Device,
    /// Where those in memory are kept.
    home: Device,
    file: Option<(PathBuf, File)>,
    /// Bytes that are kept in memory.
    held: u64,
}

#[derive(Debug)]
enum Slot {
    Memory(Mutex<Option<Tensor>>),
    File { offset: u64, tokens: i64 },
}

/// Where hidden states may lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    /// The device that keeps them: the one that computes, or the CPU.
    pub(crate) home: Device,
    /// Bytes in memory at most.
    pub(crate) limit: u64,
    /// Directory for the file that takes the rest.
    pub(crate) spill: &'a Path,
}

impl Hidden {
    /// Empty slots for chunks of so many tokens, states `[tokens, width]`.
    ///
    /// # Errors
    /// When a file is needed and cannot be made.
    pub(crate) fn new(
        tokens: impl Iterator<Item = usize>,
        width: usize,
        (kind, device): (Kind, Device),
        room: Room<'_>,
    ) -> Result<Self, GramError> {
        let (mut held, mut end) = (0, 0);
        let slots: Vec<Slot> = tokens
            .map(|tokens| {
                let bytes = (tokens * width * kind.elt_size_in_bytes()) as u64;
                if held + bytes <= room.limit {
                    held += bytes;
                    return Slot::Memory(Mutex::default());
                }
                let offset = end;
                end += bytes;
                Slot::File { offset, tokens: tokens as i64 }
            })
            .collect();
        let file = if end > 0 {
            // Without a name from the start: the disk gets it back however this process ends.
            let file = tempfile::tempfile_in(room.spill).map_err(FileError::of("make room in", room.spill))?;
            Some((room.spill.to_path_buf(), file))
        } else {
            None
        };
        Ok(Self { slots, width: width as i64, kind, device, home: room.home, file, held })
    }

    /// Bytes that are kept in a file.
    pub(crate) fn spilled(&self) -> u64 {
        let sizes = self.slots.iter().filter_map(|slot| match slot {
            Slot::File { tokens, .. } => Some((tokens * self.width) as u64 * self.kind.elt_size_in_bytes() as u64),
            Slot::Memory(_) => None,
        });
        sizes.sum()
    }

    /// Bytes that are kept in main memory.
    pub(super) fn resident(&self) -> u64 {
        if self.home == Device::Cpu { self.held } else { 0 }
    }

    /// The states of a chunk, on the device that computes.
    ///
    /// # Errors
    /// When the file cannot be read or the device has no room.
    pub(crate) fn get(&self, chunk: usize) -> Result<Tensor, GramError> {
        let fail = || GramError::torch("hidden states");
        let states = match &self.slots[chunk] {
            Slot::Memory(states) => {
                let states = states.lock().expect("no holder panics");
                states.as_ref().expect("every chunk is embedded first").shallow_clone()
            }
            Slot::File { offset, tokens } => {
                let (path, file) = self.file.as_ref().expect("a chunk in the file has one");
                let mut bytes = vec![0; (tokens * self.width) as usize * self.kind.elt_size_in_bytes()];
                file.read_exact_at(&mut bytes, *offset).map_err(FileError::of("read hidden states in", path))?;
                Tensor::f_from_data_size(&bytes, &[*tokens, self.width], self.kind).map_err(fail())?
            }
        };
        states.f_to_device(self.device).map_err(fail())
    }

    /// Keeps the states of a chunk in place of those before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set(&self, chunk: usize, states: &Tensor) -> Result<(), GramError> {
        let fail = || GramError::torch("hidden states");
        match &self.slots[chunk] {
            Slot::Memory(slot) => {
                let kept = states.f_to_device(self.home).map_err(fail())?;
                *slot.lock().expect("no holder panics") = Some(kept);
            }
            Slot::File { offset, .. } => {
                let (path, file) = self.file.as_ref().expect("a chunk in the file has one");
                let mut bytes = vec![0; states.numel() * self.kind.elt_size_in_bytes()];
                states
                    .f_to_device(Device::Cpu)
                    .and_then(|states| states.f_contiguous())
                    .and_then(|states| states.f_copy_data_u8(&mut bytes, states.numel()))
                    .map_err(fail())?;
                file.write_all_at(&bytes, *offset).map_err(FileError::of("keep hidden states in", path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_beyond_the_limit_come_back_from_the_file_as_they_went() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room { home: Device::Cpu, limit: 5 * 4 * 2, spill: directory.path() };
        let tokens = [3, 4, 2, 1];
        let options = (Kind::BFloat16, Device::Cpu);
        let hidden = Hidden::new(tokens.into_iter(), 4, options, room).unwrap();
        // 3 fit, 4 do not, then 2 do, and 1 no more.
        assert_eq!(hidden.spilled(), (4 + 1) * 4 * 2);
        for round in 0..2 {
            let states = |chunk: usize| Tensor::full([tokens[chunk] as i64, 4], (chunk + round) as f64 + 0.5, options);
            for chunk in [2, 0, 3, 1] {
                hidden.set(chunk, &states(chunk)).unwrap();
            }
            for chunk in 0..4 {
                assert_eq!(hidden.get(chunk).unwrap(), states(chunk));
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
    }
}
