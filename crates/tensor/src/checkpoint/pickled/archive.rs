//! The zip that `torch.save` writes: entries stored without compression, found through the central directory
//! (PKWARE's APPNOTE, sections 4.3 and 4.5.3; zip64 where a file is larger than 4 GB).

use std::collections::HashMap;
use std::ops::Range;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";

/// Byte ranges of a zip's entries.
#[derive(Debug)]
pub(super) struct Archive {
    /// By path below the archive's top directory.
    entries: HashMap<String, Range<usize>>,
}

/// Little-endian numbers at checked places.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&self, at: usize, size: usize) -> Result<usize, String> {
        let bytes = self.slice(at, size)?;
        let number = bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| "it is too large for this machine".to_owned())
    }

    fn slice(&self, at: usize, size: usize) -> Result<&[u8], String> {
        let end = at.checked_add(size).filter(|end| *end <= self.0.len());
        end.map(|end| &self.0[at..end]).ok_or_else(|| "it is truncated".to_owned())
    }

    fn expect(&self, at: usize, signature: &[u8]) -> Result<(), String> {
        if self.slice(at, signature.len())? == signature { Ok(()) } else { Err("its directory is damaged".to_owned()) }
    }
}

impl Archive {
    /// Whether a file begins as a zip does.
    pub(super) fn is_one(file: &[u8]) -> bool {
        file.starts_with(LOCAL)
    }

    /// Reads the directory of a zip.
    pub(super) fn open(file: &[u8]) -> Result<Self, String> {
        let bytes = Bytes(file);
        // The end record is followed by a comment of at most 64 KB.
        let tail = file.len().saturating_sub(22 + 0xffff);
        let end = file[tail..].windows(4).rposition(|window| window == END).ok_or("it is truncated")? + tail;
        bytes.slice(end, 22)?;
        let (mut count, mut at) = (bytes.number(end + 10, 2)?, bytes.number(end + 16, 4)?);
        if let Some(locator) = end.checked_sub(20).filter(|at| bytes.expect(*at, LOCATOR64).is_ok()) {
            let end64 = bytes.number(locator + 8, 8)?;
            bytes.expect(end64, END64)?;
            (count, at) = (bytes.number(end64 + 32, 8)?, bytes.number(end64 + 48, 8)?);
        }
        let mut entries = HashMap::new();
        for _ in 0..count {
            bytes.expect(at, CENTRAL)?;
            let (name, extra, comment) =
                (bytes.number(at + 28, 2)?, bytes.number(at + 30, 2)?, bytes.number(at + 32, 2)?);
            let path = std::str::from_utf8(bytes.slice(at + 46, name)?).map_err(|_| "a name in it is not UTF-8")?;
            if bytes.number(at + 10, 2)? != 0 || bytes.number(at + 8, 2)? & 1 != 0 {
                return Err(format!("{path:?} in it is compressed or encrypted"));
            }
            let range = entry(&bytes, at, at + 46 + name, extra)?;
            let below = path.split_once('/').map_or(path, |(_, below)| below);
            if entries.insert(below.to_owned(), range).is_some() {
                return Err(format!("{path:?} is in it twice"));
            }
            at += 46 + name + extra + comment;
        }
        Ok(Self { entries })
    }

    /// Where an entry's bytes lie in the file.
    pub(super) fn bytes(&self, path: &str) -> Option<Range<usize>> {
        self.entries.get(path).cloned()
    }
}

/// The bytes of the entry whose central record is at `at`, with its extra fields at `fields`.
fn entry(bytes: &Bytes<'_>, at: usize, fields: usize, length: usize) -> Result<Range<usize>, String> {
    const LARGE: usize = u32::MAX as usize;
    // Size, stored size, and where the entry's own record lies.
    let mut numbers = [bytes.number(at + 24, 4)?, bytes.number(at + 20, 4)?, bytes.number(at + 42, 4)?];
    // What does not fit into four bytes stands in the zip64 field, in this order.
    let mut field = fields;
    while field + 4 <= fields + length {
        let (id, long) = (bytes.number(field, 2)?, bytes.number(field + 2, 2)?);
        if id == 1 {
            let mut value = field + 4;
            for number in numbers.iter_mut().filter(|number| **number == LARGE) {
                *number = bytes.number(value, 8)?;
                value += 8;
            }
        }
        field += 4 + long;
    }
    let [size, _, local] = numbers;
    bytes.expect(local, LOCAL)?;
    let start = local + 30 + bytes.number(local + 26, 2)? + bytes.number(local + 28, 2)?;
    bytes.slice(start, size)?;
    Ok(start..start + size)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A zip with these entries, as small as one can be.
    pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in entries {
            let (at, size, length) = (file.len() as u32, data.len() as u32, name.len() as u16);
            let sizes = [size.to_le_bytes(), size.to_le_bytes()].concat();
            file.extend([LOCAL, &[0; 14], &sizes, &length.to_le_bytes(), &[0; 2], name.as_bytes(), data].concat());
            let head = [CENTRAL, &[0; 16], &sizes, &length.to_le_bytes(), &[0; 12], &at.to_le_bytes()].concat();
            directory.extend([head.as_slice(), name.as_bytes()].concat());
        }
        let (at, size, count) = (file.len() as u32, directory.len() as u32, entries.len() as u16);
        file.extend(directory);
        let count = [count.to_le_bytes(), count.to_le_bytes()].concat();
        file.extend([END, &[0; 4], &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0; 2]].concat());
        file
    }

    #[test]
    fn entries_are_found_below_the_top_directory() {
        let file = zip(&[("m/data.pkl", b"one"), ("m/data/0", b"twelve")]);
        let archive = Archive::open(&file).unwrap();
        assert_eq!(&file[archive.bytes("data/0").unwrap()], b"twelve");
        assert_eq!(archive.bytes("data/1"), None);
    }

    #[test]
    fn damage_is_an_error_wherever_the_file_is_cut_or_changed() {
        let whole = zip(&[("m/data.pkl", b"one"), ("m/data/0", b"twelve")]);
        for length in 0..whole.len() {
            assert!(Archive::open(&whole[..length]).is_err(), "cut at {length}");
        }
        // Any one byte changed: an error or other entries, and never a place outside the file.
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Ok(archive) = Archive::open(&changed) {
                    assert!(archive.entries.values().all(|range| range.end <= changed.len()));
                }
            }
        }
        assert_eq!(Archive::open(b"hello").unwrap_err(), "it is truncated");
        let twice = zip(&[("m/data/0", b"a"), ("m/data/0", b"b")]);
        assert_eq!(Archive::open(&twice).unwrap_err(), "\"m/data/0\" is in it twice");
    }
}
