//! One mapped file of tensors.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use tch::Tensor;

use super::CheckpointError;
use crate::dtype::kind_of;
use crate::failure::FileError;
use crate::system::MappedFile;

/// What a file says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Stored type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Byte range in the file: of the tensor, row-major; with strides, from its first element to the end of its last.
    pub(super) bytes: Range<usize>,
    /// Elements between neighbours along each side, where the tensor is not row-major without gaps.
    pub(super) strides: Option<Vec<usize>>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where in the file it lies, from its first element to the end of its last; two tensors of one range and one shape may
    /// be one.
    pub(crate) fn range(&self) -> &Range<usize> {
        &self.bytes
    }

    /// Whether it is row-major without gaps.
    pub(crate) fn is_row_major(&self) -> bool {
        self.strides.is_none()
    }
}

/// One mapped file, safetensors or pickled, whose tensors were checked to lie inside it.
#[derive(Debug)]
pub struct SafeFile {
    path: PathBuf,
    map: MappedFile,
    tensors: IndexMap<String, TensorInfo>,
}

impl SafeFile {
    /// Maps a safetensors file and checks its header: sizes, types and byte ranges must fit each other and the file.
    ///
    /// # Errors
    /// When it cannot be read, or the header does not describe the file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = MappedFile::open(path).map_err(FileError::of("read", path))?;
        let header = |reason: String| CheckpointError::Header { path: path.to_path_buf(), reason };
        let (length, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| header(describe(&error, map.len())))?;
        let start = 8 + length;
        // Of two tensors of one name, the reader above keeps one.
        serde_json::from_slice::<UniqueNames>(&map[8..start]).map_err(|error| header(error.to_string()))?;
        let tensors = metadata
            .offset_keys()
            .into_iter()
            .filter_map(|name| {
                let info = metadata.info(&name)?;
                let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
                Some((name, TensorInfo { dtype: info.dtype, shape: info.shape.clone(), bytes, strides: None }))
            })
            .collect();
        Ok(Self { path: path.to_path_buf(), map, tensors })
    }

    /// Gives tensors other names; those without one are not there any more.
    pub(super) fn rename(&mut self, new: impl Fn(&str) -> Option<String>) {
        let named = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = named.filter_map(|(name, info)| Some((new(&name)?, info))).collect();
    }

    /// Takes a mapped file whose tensors are known to lie inside it.
    pub(super) fn of_parts(path: &Path, map: MappedFile, tensors: IndexMap<String, TensorInfo>) -> Self {
        Self { path: path.to_path_buf(), map, tensors }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> usize {
        self.map.len()
    }

    /// Its tensors, in file order.
    pub fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// What the file says of one tensor.
    ///
    /// # Errors
    /// When it is not in the file.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::Missing { place: self.path.clone(), name: name.to_owned() })
    }

    /// The stored bytes of the elements `range` of one tensor laid flat, row-major.
    ///
    /// # Errors
    /// When the tensor is not there.
    ///
    /// # Panics
    /// When the range reaches past the tensor.
    pub fn bytes(&self, name: &str, range: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let info = self.info(name)?;
        assert!(range.start <= range.end && range.end <= info.elements(), "{name} has no elements {range:?}");
        let bits = info.dtype.bitsize();
        let all = &self.map[info.bytes.clone()];
        Ok(match &info.strides {
            None => Cow::Borrowed(&all[range.start * bits / 8..range.end * bits / 8]),
            Some(strides) => Cow::Owned(gather(all, &info.shape, strides, bits / 8, range)),
        })
    }

    /// Asks the system to read ahead what [`Self::bytes`] will be asked for soon. Unknown names and ranges past the end
    /// are passed over.
    pub fn will_need(&self, name: &str, range: Range<usize>) {
        if let Some(info) = self.tensors.get(name).filter(|info| info.strides.is_none()) {
            let bits = info.dtype.bitsize();
            let start = info.bytes.start + range.start * bits / 8;
            let end = (info.bytes.start + range.end * bits / 8).min(info.bytes.end);
            if start < end {
                self.map.will_need(start..end);
            }
        }
    }

    /// Counts a tensor's pages no longer as this process's memory, until they are read again. Unknown names are passed over.
    pub(crate) fn let_go(&self, name: &str) {
        if let Some(info) = self.tensors.get(name) {
            self.map.let_go(info.bytes.clone());
        }
    }

    /// As [`Self::let_go`], for the elements `range` of a tensor laid flat.
    pub(crate) fn let_go_of(&self, name: &str, range: Range<usize>) {
        if let Some(info) = self.tensors.get(name).filter(|info| info.strides.is_none()) {
            let bits = info.dtype.bitsize();
            let start = info.bytes.start + range.start * bits / 8;
            let end = info.bytes.start + range.end * bits / 8;
            self.map.let_go(start..end.min(info.bytes.end));
        }
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
        let kind = kind_of(info.dtype).ok_or_else(|| self.unread(name, info.dtype))?;
        let bytes = self.bytes(name, range.clone())?;
        let shape: Vec<i64> = shape.iter().map(|&side| side as i64).collect();
        // libtorch copies as many bytes as the shape asks for: it must be what the slice holds.
        let size = kind.elt_size_in_bytes();
        assert_eq!(shape.iter().product::<i64>() as usize * size, bytes.len(), "shape and byte range agree");
        let tensor = Tensor::f_from_data_size(&bytes, &shape, kind).map_err(CheckpointError::torch(name))?;
        // The copy is what is used from here on; the file's pages need not count as this process's memory.
        let start = info.bytes.start + range.start * size;
        self.map.let_go(start..(start + bytes.len()).min(info.bytes.end));
        Ok(tensor)
    }

    /// A type that is not read.
    pub(crate) fn unread(&self, name: &str, dtype: Dtype) -> CheckpointError {
        CheckpointError::Dtype { path: self.path.clone(), name: name.to_owned(), dtype: dtype.to_string() }
    }
}

/// Elements `range`, counted row-major, of a tensor with strides.
fn gather(all: &[u8], shape: &[usize], strides: &[usize], size: usize, range: Range<usize>) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(range.len() * size);
    for index in range {
        let (mut rest, mut offset) = (index, 0);
        for (side, stride) in shape.iter().zip(strides).rev() {
            offset += rest % side * stride;
            rest /= side;
        }
        gathered.extend_from_slice(&all[offset * size..(offset + 1) * size]);
    }
    gathered
}

/// A JSON object no name of which stands twice.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UniqueNames;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueNames, A::Error> {
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    map.next_value::<IgnoredAny>()?;
                    if seen.contains(&name) {
                        return Err(serde::de::Error::custom(format!("{name:?} stands in the header twice")));
                    }
                    seen.insert(name);
                }
                Ok(UniqueNames)
            }
        }
        deserializer.deserialize_map(Names)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this header and this many bytes of data.
    fn refused(header: &str, data: usize) -> String {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        refused_bytes(&bytes)
    }

    fn refused_bytes(bytes: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        SafeFile::open(&path).unwrap_err().to_string()
    }

    #[test]
    fn a_hostile_header_is_refused_with_what_is_wrong_in_it() {
        let entry = |name: &str, start: usize, end: usize| {
            format!(r#""{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[{start},{end}]}}"#, (end - start) / 4)
        };
        let cases = [
            (refused(&format!("{{{},{}}}", entry("a", 0, 8), entry("b", 4, 12)), 12), "\"b\" overlaps another"),
            (refused(&format!("{{{},{}}}", entry("a", 0, 8), entry("b", 12, 16)), 16), "leaves a hole"),
            (refused(&format!("{{{}}}", entry("a", 0, 80)), 8), "truncated or has a tail"),
            (refused(&format!("{{{}}}", entry("a", 0, 8)), 80), "truncated or has a tail"),
            (refused(&format!("{{{},{}}}", entry("a", 0, 8), entry("a", 0, 8)), 8), "\"a\" stands in the header twice"),
            (refused(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8), "not what its type and shape"),
            (
                refused(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#, 8),
                "not a sound safetensors file",
            ),
            (refused(r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8), "F99"),
            (refused(&format!("{{\"a\":{}", "[".repeat(1_000_000)), 8), "not a sound safetensors file"),
            (refused_bytes(&[1, 2, 3]), "the file has 3 bytes, too few for a header"),
            (refused_bytes(&u64::MAX.to_le_bytes()), "larger than 100 MB"),
            (refused_bytes(&1000u64.to_le_bytes()), "longer than the file"),
            (refused_bytes(b""), "too few for a header"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{expected:?} is not in {found}");
        }
    }

    #[test]
    fn a_tensor_with_strides_is_gathered_row_major() {
        // [[0, 1, 2], [3, 4, 5]] transposed: shape [3, 2], strides [1, 3].
        let all = [0, 1, 2, 3, 4, 5];
        assert_eq!(gather(&all, &[3, 2], &[1, 3], 1, 0..6), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gather(&all, &[3, 2], &[1, 3], 1, 3..5), [4, 2]);
    }
}
