//! Files compressed with gzip or zstd, as one stream of what they hold.

use std::fs::File;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952: one member, or several one after the other.
    Gzip,
    /// RFC 8878: one frame, or several one after the other.
    Zstd,
}

impl Compression {
    /// By the ending of a file's name, in lower case and without the dot.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What is inside of a file, as a stream.
    ///
    /// A stream that ends early or is damaged gives an error of kind [`io::ErrorKind::InvalidData`] that says so, when it
    /// is read that far; what the disk has to say comes through as it is.
    ///
    /// # Errors
    /// When the decompressor cannot be made: no memory for it.
    pub fn open(self, file: File) -> io::Result<impl Read + Send + 'static> {
        let file = BufReader::with_capacity(1 << 16, file);
        let inner: Box<dyn Read + Send> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        };
        Ok(Explained { inner, compression: self, any: false })
    }
}

/// A decompressor whose errors say what is wrong with the file.
struct Explained {
    inner: Box<dyn Read + Send>,
    compression: Compression,
    /// Whether anything came out of it yet.
    any: bool,
}

impl Read for Explained {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.any |= count > 0;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted || error.raw_os_error().is_some() => Err(error),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, self.explain(&error))),
        }
    }
}

impl Explained {
    fn explain(&self, error: &io::Error) -> String {
        let name = self.compression.name();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("the {name} stream ends early: the file is cut off"),
            _ if self.any => format!("the {name} stream is damaged: {error}"),
            _ => format!("not a {name} stream: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    fn read(compression: Compression, bytes: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        let mut text = String::new();
        let mut stream = compression.open(File::open(&path).unwrap()).unwrap();
        stream.read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
    }

    #[test]
    fn several_members_are_one_stream() {
        let joined = |pack: fn(&[u8]) -> Vec<u8>| [pack(b"one\n"), pack(b""), pack(b"two\n")].concat();
        assert_eq!(read(Compression::Gzip, &joined(gzip)).unwrap(), "one\ntwo\n");
        assert_eq!(read(Compression::Zstd, &joined(zstd)).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_stream_that_is_cut_off_says_so_wherever_it_is_cut() {
        let text = b"some text that is long enough to be cut in many places".repeat(3);
        for (compression, whole) in [(Compression::Gzip, gzip(&text)), (Compression::Zstd, zstd(&text))] {
            for end in 1..whole.len() {
                let message = read(compression, &whole[..end]).unwrap_err();
                assert!(
                    message.ends_with("stream ends early: the file is cut off"),
                    "{compression:?}, {end}: {message}"
                );
            }
        }
    }

    #[test]
    fn a_second_member_that_is_cut_off_says_so() {
        for (compression, member) in [(Compression::Gzip, gzip(b"text")), (Compression::Zstd, zstd(b"text"))] {
            let cut = [&member[..], &member[..member.len() - 3]].concat();
            assert!(read(compression, &cut).unwrap_err().contains("cut off"), "{compression:?}");
        }
    }

    #[test]
    fn what_is_not_compressed_or_is_damaged_is_told_apart() {
        let message = |compression, bytes: &[u8]| read(compression, bytes).unwrap_err();
        assert!(message(Compression::Gzip, b"{\"a\": 1}\n{\"a\": 2}\n").starts_with("not a gzip stream: "));
        assert!(message(Compression::Zstd, b"{\"a\": 1}\n{\"a\": 2}\n").starts_with("not a zstd stream: "));
        let mut wrong = gzip(b"text");
        let checksum = wrong.len() - 8;
        wrong[checksum] ^= 1;
        assert!(message(Compression::Gzip, &wrong).starts_with("the gzip stream is damaged: "));
        let garbage = [gzip(b"text"), b"and something else".to_vec()].concat();
        assert!(message(Compression::Gzip, &garbage).starts_with("the gzip stream is damaged: "));
    }
}
