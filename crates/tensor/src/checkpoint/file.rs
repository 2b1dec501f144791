//! One mapped safetensors file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};
use tch::Tensor;

use super::CheckpointError;
use crate::dtype::kind_of;
use crate::failure::FileError;
use crate::system::MappedFile;

/// What a header says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Stored type.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Byte range in the file.
    bytes: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One mapped safetensors file whose header was checked against its size.
#[derive(Debug)]
pub struct SafeFile {
    path: PathBuf,
    map: MappedFile,
    tensors: IndexMap<String, TensorInfo>,
}

impl SafeFile {
    /// Maps a file and checks its header: sizes, types and byte ranges must fit each other and the file.
    ///
    /// # Errors
    /// When it cannot be read, or the header does not describe the file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = MappedFile::open(path).map_err(FileError::of("read", path))?;
        let header = |reason: String| CheckpointError::Header { path: path.to_path_buf(), reason };
        let (length, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| header(describe(&error, map.len())))?;
        let start = 8 + length;
        let tensors = metadata
            .offset_keys()
            .into_iter()
            .filter_map(|name| {
                let info = metadata.info(&name)?;
                let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
                Some((name, TensorInfo { dtype: info.dtype, shape: info.shape.clone(), bytes }))
            })
            .collect();
        Ok(Self { path: path.to_path_buf(), map, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors, in file order.
    pub fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// What the header says of one tensor.
    ///
    /// # Errors
    /// When it is not in the file.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::Missing { place: self.path.clone(), name: name.to_owned() })
    }

    /// A copy of one tensor, in its stored type and shape, on the CPU.
    ///
    /// # Errors
    /// When it is not there or of a type that is not read.
    pub fn load(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let info = self.info(name)?;
        self.copy(name, info, 0..info.elements(), &info.shape)
    }

    /// A copy of the elements `range` of one tensor laid flat, `[range.len()]`, on the CPU.
    ///
    /// # Errors
    /// When it is not there or of a type that is not read.
    ///
    /// # Panics
    /// When the range reaches past the tensor.
    pub fn load_range(&self, name: &str, range: Range<usize>) -> Result<Tensor, CheckpointError> {
        let info = self.info(name)?;
        let shape = [range.len()];
        self.copy(name, info, range, &shape)
    }

    fn copy(
        &self,
        name: &str,
        info: &TensorInfo,
        range: Range<usize>,
        shape: &[usize],
    ) -> Result<Tensor, CheckpointError> {
        let kind = kind_of(info.dtype).ok_or_else(|| CheckpointError::Dtype {
            path: self.path.clone(),
            name: name.to_owned(),
            dtype: format!("{:?}", info.dtype),
        })?;
        let size = kind.elt_size_in_bytes();
        let all = &self.map[info.bytes.clone()];
        let bytes = &all[range.start * size..range.end * size];
        let shape: Vec<i64> = shape.iter().map(|&side| side as i64).collect();
        // libtorch copies as many bytes as the shape asks for: it must be what the slice holds.
        assert_eq!(shape.iter().product::<i64>() as usize * size, bytes.len(), "shape and byte range agree");
        let tensor = Tensor::f_from_data_size(bytes, &shape, kind).map_err(CheckpointError::torch(name))?;
        let start = info.bytes.start + range.start * size;
        self.map.let_go(start..start + bytes.len());
        Ok(tensor)
    }
}

/// The header error in words that say what to look at.
fn describe(error: &safetensors::SafeTensorError, file_size: usize) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall => format!("the file has {file_size} bytes, too few for a header"),
        E::HeaderTooLarge => "the header claims to be larger than 100 MB".to_owned(),
        E::InvalidHeaderLength => format!("the header claims to be longer than the file ({file_size} bytes)"),
        E::MetadataIncompleteBuffer => {
            format!(
                "the header's tensors do not end where the file does (at {file_size} bytes): it is truncated or has a tail"
            )
        }
        E::InvalidOffset(name) => {
            format!("the byte range of {name:?} overlaps another, leaves a hole or runs backwards")
        }
        E::TensorInvalidInfo => "a tensor's byte range is not what its type and shape need".to_owned(),
        other => other.to_string(),
    }
}
