//! Contents of files on their way out.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use super::super::HubError;
use super::{Content, LocalFile};

/// The whole of a file, which must be as long as was said.
pub(super) fn read(file: &LocalFile) -> Result<Vec<u8>, HubError> {
    let bytes = match &file.content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::File(path) => std::fs::read(path).map_err(|source| unreadable(file, source))?,
    };
    check_size(file, bytes.len() as u64)?;
    Ok(bytes)
}

/// The first bytes of a file, at most so many.
pub(super) fn sample(file: &LocalFile, length: u64) -> Result<Vec<u8>, HubError> {
    let mut bytes = Vec::new();
    part(file, 0, length.min(file.size))?.read_to_end(&mut bytes).map_err(|source| unreadable(file, source))?;
    Ok(bytes)
}

/// A range of a file, which must be as long as was said.
pub(super) fn part(file: &LocalFile, start: u64, length: u64) -> Result<Box<dyn Read + '_>, HubError> {
    match &file.content {
        Content::Bytes(bytes) => {
            check_size(file, bytes.len() as u64)?;
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(start);
            Ok(Box::new(cursor.take(length)))
        }
        Content::File(path) => {
            let open = || -> io::Result<(File, u64)> {
                let mut opened = File::open(path)?;
                let size = opened.metadata()?.len();
                opened.seek(SeekFrom::Start(start))?;
                Ok((opened, size))
            };
            let (opened, size) = open().map_err(|source| unreadable(file, source))?;
            check_size(file, size)?;
            Ok(Box::new(opened.take(length)))
        }
    }
}

fn check_size(file: &LocalFile, found: u64) -> Result<(), HubError> {
    if found == file.size {
        return Ok(());
    }
    let source = io::Error::other(format!("it has {found} bytes and had {}", file.size));
    Err(unreadable(file, source))
}

pub(super) fn unreadable(file: &LocalFile, source: io::Error) -> HubError {
    let path = match &file.content {
        Content::File(path) => path.clone(),
        Content::Bytes(_) => file.path.clone().into(),
    };
    HubError::Local { path, source }
}

/// A reader that counts what is read, and keeps the error that ends it.
pub(super) struct Counted<'a> {
    pub(super) inner: Box<dyn Read + 'a>,
    /// Told of every piece; says whether to go on.
    pub(super) on_read: &'a mut dyn FnMut(u64) -> bool,
    pub(super) failure: Option<io::Error>,
    pub(super) is_stopped: bool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                if count > 0 && !(self.on_read)(count as u64) {
                    self.is_stopped = true;
                    return Err(io::Error::other("stopped"));
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failure = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_or_has_another_length_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let file =
            LocalFile { path: "w".into(), size: 10, sha256: String::new(), content: Content::File(path.clone()) };
        let said = |outcome: Result<Vec<u8>, HubError>| outcome.unwrap_err().to_string();
        let gone = said(sample(&file, 4));
        assert!(gone.starts_with(&format!("cannot read {}: ", path.display())), "{gone}");
        std::fs::write(&path, "123456789").unwrap();
        for outcome in [read(&file), sample(&file, 4)] {
            let short = said(outcome);
            assert!(short.ends_with("weights: it has 9 bytes and had 10"), "{short}");
        }
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(sample(&file, 4).unwrap(), b"0123");
        let mut middle = String::new();
        part(&file, 3, 4).unwrap().read_to_string(&mut middle).unwrap();
        assert_eq!(middle, "3456");
    }
}
