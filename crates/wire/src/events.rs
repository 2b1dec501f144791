//! Events: what a child says while it works, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How far the work is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all, 0 if unknown.
        total: u64,
        /// What is counted: `layers`, `tasks`, …
        unit: String,
    },
    /// Something a person should know: a skipped row, a step down of the solver.
    Note {
        /// One sentence.
        message: String,
    },
    /// One item of a batch is complete: `out/<item>/` may be committed.
    Item {
        /// Index of the item in the child's job.
        item: usize,
    },
    /// One item of a batch failed; the others go on.
    ItemFailed {
        /// Index of the item in the child's job.
        item: usize,
        /// One sentence.
        message: String,
        /// Whose fault it is.
        fault: Fault,
    },
    /// A file of the result is complete, on the disk, and will not be touched again.
    Written {
        /// Path inside the result's directory, with `/`.
        path: String,
        /// Bytes.
        size: u64,
        /// SHA-256 of its contents, 64 hexadecimal digits.
        sha256: String,
    },
    /// Facts about the run for the manifest: device, peak memory, versions.
    Facts {
        /// Merged into the manifest's `facts`.
        facts: serde_json::Map<String, serde_json::Value>,
    },
    /// The child gives up; it exits with a code that is not 0 after this.
    Error {
        /// One sentence that names file, place and values.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whose fault it is.
        fault: Fault,
    },
}

/// Whose fault a failure is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The experiment is wrong (exit code 3).
    Experiment,
    /// The work failed, or what it needs is missing (exit code 1).
    Stage,
}

/// Appends events to a file.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
}

impl EventWriter {
    /// Opens the file for appending, creating it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(path)? })
    }

    /// Appends one event as one line, in one write.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// Follows an event file while somebody else appends to it.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
}

impl EventReader {
    /// A reader at the start of a file that need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, offset: 0 }
    }

    /// The complete lines since the last call. A line that is no event (another program's output) is skipped; an
    /// unfinished last line is left for the next call.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Event>> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        let Some(file) = self.file.as_mut() else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.offset += complete as u64;
        Ok(bytes[..complete]
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_line_is_left_for_the_next_poll() {
        let dir = std::env::temp_dir().join(format!("wire-events-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("events.jsonl");
        let mut reader = EventReader::new(&path);
        assert_eq!(reader.poll().unwrap(), []);
        std::fs::write(&path, "{\"event\":\"item\",\"item\":3}\nnot an event\n{\"event\":\"item\",").unwrap();
        assert_eq!(reader.poll().unwrap(), [Event::Item { item: 3 }]);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\"item\":4}\n").unwrap();
        assert_eq!(reader.poll().unwrap(), [Event::Item { item: 4 }]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
