//! Writing safetensors: shards are planned and preallocated first, then filled in any order by any number of threads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use safetensors::Dtype;
use tch::{Device, Tensor};

use super::CheckpointError;
use crate::dtype::kind_of;
use crate::failure::FileError;

/// Shards hold at most this many bytes of tensors, unless one tensor alone has more.
pub const DEFAULT_SHARD_SIZE: usize = 5_000_000_000;

/// A tensor that will be written.
#[derive(Clone, Debug)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Type to store it in.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
}

impl NewTensor {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        self.elements() * self.dtype.bitsize() / 8
    }
}

#[derive(Debug)]
struct Slot {
    shard: usize,
    offset: u64,
    spec: NewTensor,
    written: AtomicUsize,
}

/// One planned file.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    head: Vec<u8>,
    tensors: Vec<String>,
    size: u64,
}

impl Shard {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands before its tensors.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Its tensors, in the order of their bytes, which follow one another without gaps.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Waits until what was written so far has reached the disk.
    ///
    /// # Errors
    /// When it has not: the disk is full or broken.
    pub fn sync(&self) -> Result<(), CheckpointError> {
        Ok(self.file.sync_data().map_err(FileError::of("write", &self.path))?)
    }

    /// Gives the file the room that it will need, so that a disk that is too small is found before any work is done.
    fn preallocate(&self) -> Result<(), FileError> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, self.size) {
            Ok(()) => Ok(()),
            // Not every file system can; then the size is all that can be set.
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(self.size),
            Err(error) => Err(error.into()),
        }
        .map_err(FileError::of("make room for", &self.path))
    }
}

/// Fills planned safetensors files.
#[derive(Debug)]
pub struct Writer {
    shards: Vec<Shard>,
    slots: IndexMap<String, Slot>,
}

impl Writer {
    /// Plans and sizes the files of a model: `model.safetensors`, or `model-00001-of-0000N.safetensors` with an index.
    ///
    /// # Errors
    /// When a file cannot be created, or the disk has no room for it.
    pub fn model(directory: &Path, tensors: Vec<NewTensor>, shard_size: usize) -> Result<Self, CheckpointError> {
        let total: usize = tensors.iter().map(NewTensor::bytes).sum();
        let mut shards: Vec<Vec<NewTensor>> = vec![Vec::new()];
        let mut filled = 0;
        for tensor in tensors {
            if filled > 0 && filled + tensor.bytes() > shard_size {
                shards.push(Vec::new());
                filled = 0;
            }
            filled += tensor.bytes();
            shards.last_mut().expect("there is always a shard").push(tensor);
        }
        let count = shards.len();
        if count == 1 {
            let tensors = shards.pop().expect("there is one shard");
            return Self::create(vec![(directory.join("model.safetensors"), tensors)]);
        }
        let name = |number: usize| format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        let weight_map: BTreeMap<&str, String> = shards
            .iter()
            .enumerate()
            .flat_map(|(number, shard)| shard.iter().map(move |tensor| (tensor.name.as_str(), name(number))))
            .collect();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        let path = directory.join("model.safetensors.index.json");
        std::fs::write(&path, format!("{index:#}\n")).map_err(FileError::of("write", &path))?;
        Self::create(
            shards.into_iter().enumerate().map(|(number, shard)| (directory.join(name(number)), shard)).collect(),
        )
    }

    /// Plans and sizes one file.
    ///
    /// # Errors
    /// When it cannot be created, or the disk has no room for it.
    pub fn single(path: &Path, tensors: Vec<NewTensor>) -> Result<Self, CheckpointError> {
        Self::create(vec![(path.to_path_buf(), tensors)])
    }

    fn create(plan: Vec<(PathBuf, Vec<NewTensor>)>) -> Result<Self, CheckpointError> {
        let mut writer = Self { shards: Vec::new(), slots: IndexMap::new() };
        for (path, mut tensors) in plan {
            // Wide types first keeps every tensor aligned to its own size.
            tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
            let (head, data) = head(&tensors);
            let mut open = OpenOptions::new();
            let file = open.read(true).write(true).create_new(true).open(&path);
            let file = file.map_err(FileError::of("create", &path))?;
            file.write_all_at(&head, 0).map_err(FileError::of("write", &path))?;
            let mut offset = head.len() as u64;
            let names = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            for spec in tensors {
                let bytes = spec.bytes() as u64;
                let slot = Slot { shard: writer.shards.len(), offset, written: AtomicUsize::new(0), spec };
                writer.slots.insert(slot.spec.name.clone(), slot);
                offset += bytes;
            }
            writer.shards.push(Shard { size: (head.len() + data) as u64, path, file, head, tensors: names });
        }
        for shard in &writer.shards {
            shard.preallocate()?;
        }
        Ok(writer)
    }

    /// The planned files.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// What is planned of one tensor.
    ///
    /// # Errors
    /// When it was not planned.
    pub fn planned(&self, name: &str) -> Result<&NewTensor, CheckpointError> {
        Ok(&self.slot(name)?.spec)
    }

    fn slot(&self, name: &str) -> Result<&Slot, CheckpointError> {
        self.slots.get(name).ok_or_else(|| {
            let place = self.shards.first().map_or_else(PathBuf::new, |shard| shard.path.clone());
            CheckpointError::Missing { place, name: name.to_owned() }
        })
    }

    /// Writes the elements of `tensor`, converted to the planned type, from the planned tensor's element `start` on.
    ///
    /// # Errors
    /// When the tensor was not planned, libtorch fails or the file cannot be written.
    ///
    /// # Panics
    /// When `tensor` reaches past the end of the planned one.
    pub fn write(&self, name: &str, start: usize, tensor: &Tensor) -> Result<(), CheckpointError> {
        let spec = self.planned(name)?;
        let count = tensor.numel();
        let kind = kind_of(spec.dtype).ok_or_else(|| CheckpointError::Dtype {
            path: self.shards[self.slots[name].shard].path.clone(),
            name: name.to_owned(),
            dtype: spec.dtype.to_string(),
        })?;
        let mut bytes = vec![0; count * kind.elt_size_in_bytes()];
        tensor
            .f_to_device_(Device::Cpu, kind, false, false)
            .and_then(|stored| stored.f_contiguous())
            .and_then(|stored| stored.f_copy_data_u8(&mut bytes, count))
            .map_err(CheckpointError::torch(name))?;
        self.write_bytes(name, start, &bytes)
    }

    /// Writes bytes of the planned type from the planned tensor's element `start` on.
    ///
    /// # Errors
    /// When the tensor was not planned, or the file cannot be written.
    ///
    /// # Panics
    /// When the bytes reach past the end of the planned tensor.
    pub fn write_bytes(&self, name: &str, start: usize, bytes: &[u8]) -> Result<(), CheckpointError> {
        let slot = self.slot(name)?;
        let shard = &self.shards[slot.shard];
        let bits = slot.spec.dtype.bitsize();
        let count = bytes.len() * 8 / bits;
        assert!(start + count <= slot.spec.elements(), "{name}: {start} + {count} elements do not fit");
        let offset = slot.offset + (start * bits / 8) as u64;
        shard.file.write_all_at(bytes, offset).map_err(FileError::of("write", &shard.path))?;
        slot.written.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Reads back what was written from the planned tensor's element `start` on.
    ///
    /// # Errors
    /// When the tensor was not planned, or the file cannot be read.
    pub fn read_back(&self, name: &str, start: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        let slot = self.slot(name)?;
        let shard = &self.shards[slot.shard];
        let offset = slot.offset + (start * slot.spec.dtype.bitsize() / 8) as u64;
        Ok(shard.file.read_exact_at(bytes, offset).map_err(FileError::of("read back", &shard.path))?)
    }

    /// A copy of a tensor that was written whole, in its planned type, on the CPU. Its shape must be this one.
    ///
    /// # Errors
    /// When the tensor was not planned, has another shape, is of a type that is not read, or the file cannot be read.
    ///
    /// # Panics
    /// When it was not written whole.
    pub fn load_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        let slot = self.slot(name)?;
        assert_eq!(slot.written.load(Ordering::Relaxed), slot.spec.elements(), "{name} is written whole");
        let place = || self.shards[slot.shard].path.clone();
        let (found, dtype) = (&slot.spec.shape, slot.spec.dtype);
        if found != expected {
            let (name, found, expected) = (name.to_owned(), found.clone(), expected.to_vec());
            return Err(CheckpointError::Shape { place: place(), name, found, expected });
        }
        let unread = || CheckpointError::Dtype { path: place(), name: name.to_owned(), dtype: dtype.to_string() };
        let kind = kind_of(dtype).ok_or_else(unread)?;
        let mut bytes = vec![0; slot.spec.bytes()];
        self.read_back(name, 0, &mut bytes)?;
        let shape: Vec<i64> = expected.iter().map(|&side| side as i64).collect();
        Tensor::f_from_data_size(&bytes, &shape, kind).map_err(CheckpointError::torch(name))
    }

    /// Ends the writing; how many bytes the tensors have in all.
    ///
    /// # Panics
    /// When a planned tensor was not written whole: a merge method that forgets one must not pass for a model.
    pub fn finish(self) -> usize {
        for (name, slot) in &self.slots {
            assert_eq!(slot.written.load(Ordering::Relaxed), slot.spec.elements(), "{name} is written whole");
        }
        self.slots.values().map(|slot| slot.spec.bytes()).sum()
    }
}

/// The bytes before the tensors, and how many bytes those have.
fn head(tensors: &[NewTensor]) -> (Vec<u8>, usize) {
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut end = 0;
    for tensor in tensors {
        let (start, name) = (end, serde_json::Value::from(tensor.name.as_str()));
        end += tensor.bytes();
        let (dtype, shape) = (tensor.dtype, &tensor.shape);
        write!(header, ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
            .expect("a string takes all that is written to it");
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(header.as_bytes());
    (head, end)
}

#[cfg(test)]
mod tests {
    use super::super::Checkpoint;
    use super::*;
    use tch::Kind;

    #[test]
    fn shards_come_back_as_one_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let plan = |name: &str, dtype, rows| NewTensor { name: name.to_owned(), dtype, shape: vec![rows, 4] };
        let planned = vec![
            plan("a", Dtype::BF16, 3),
            plan("b", Dtype::F32, 5),
            plan("c", Dtype::F16, 1),
            plan("d", Dtype::I64, 2),
        ];
        let writer = Writer::model(directory.path(), planned, 90).unwrap();
        let values = |rows: i64| Tensor::arange(rows * 4, (Kind::Float, Device::Cpu)).view([rows, 4]);
        for (name, rows) in [("d", 2), ("a", 3), ("c", 1), ("b", 5)] {
            // In two parts, the second first.
            let flat = values(rows).view([-1]);
            writer.write(name, 3, &flat.narrow(0, 3, rows * 4 - 3)).unwrap();
            writer.write(name, 0, &flat.narrow(0, 0, 3)).unwrap();
        }
        assert_eq!(writer.finish(), 3 * 8 + 5 * 16 + 8 + 2 * 32);
        let names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "three shards and an index: {names:?}");
        let read = Checkpoint::open(directory.path()).unwrap();
        for (name, rows) in [("a", 3), ("b", 5), ("c", 1), ("d", 2)] {
            assert_eq!(read.load(name).unwrap().to_kind(Kind::Float), values(rows), "{name}");
        }
        assert_eq!(read.load("d").unwrap().kind(), Kind::Int64);
    }

    #[test]
    #[should_panic(expected = "b is written whole")]
    fn a_tensor_that_was_forgotten_does_not_pass() {
        let directory = tempfile::tempdir().unwrap();
        let plan = |name: &str| NewTensor { name: name.to_owned(), dtype: Dtype::F32, shape: vec![2] };
        let writer = Writer::single(&directory.path().join("x"), vec![plan("a"), plan("b")]).unwrap();
        writer.write("a", 0, &Tensor::from_slice(&[1.0f32, 2.0])).unwrap();
        writer.finish();
    }
}
