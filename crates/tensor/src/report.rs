//! What the program says while it works: events for the orchestrator, notes and facts for the manifest.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use mergelab_wire::{Event, EventWriter};
use serde_json::{Map, Value};

use crate::failure::{Failure, FileError};

/// Sends events; shared by all workers.
///
/// An event that cannot be written is dropped: the disk is full, and the work itself will say so.
#[derive(Debug)]
pub struct Reporter {
    events: Option<Mutex<EventWriter>>,
    facts: Mutex<Map<String, Value>>,
    notes: Mutex<Vec<String>>,
}

impl Reporter {
    /// Appends to an event file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let events = EventWriter::open(path).map_err(FileError::of("open", path))?;
        Ok(Self { events: Some(Mutex::new(events)), ..Self::silent() })
    }

    /// Keeps notes and facts and sends nothing; for tests.
    pub fn silent() -> Self {
        Self { events: None, facts: Mutex::default(), notes: Mutex::default() }
    }

    fn send(&self, event: &Event) {
        if let Some(events) = &self.events {
            let _ = events.lock().expect("no reporter panics").send(event);
        }
    }

    /// How far the work is.
    pub fn progress(&self, done: usize, total: usize, unit: &str) {
        self.send(&Event::Progress { done: done as u64, total: total as u64, unit: unit.to_owned() });
    }

    /// Something a person should know; also printed.
    pub fn note(&self, message: impl Into<String>) {
        let message = message.into();
        if self.events.is_some() {
            let _ = writeln!(std::io::stderr(), "note: {message}");
        }
        self.send(&Event::Note { message: message.clone() });
        self.notes.lock().expect("no reporter panics").push(message);
    }

    /// A file of the result is complete and will not be touched again; `path` is relative to the result's directory.
    pub fn written(&self, path: &Path, size: u64, sha256: &str) {
        let path = path.to_string_lossy().into_owned();
        self.send(&Event::Written { path, size, sha256: sha256.to_owned() });
    }

    /// Records a fact for the manifest.
    pub fn fact(&self, name: &str, value: impl Into<Value>) {
        self.facts.lock().expect("no reporter panics").insert(name.to_owned(), value.into());
    }

    /// Sends the facts recorded so far.
    pub fn send_facts(&self) {
        let facts = self.facts.lock().expect("no reporter panics").clone();
        self.send(&Event::Facts { facts });
    }

    /// Says that the program gives up.
    pub fn error(&self, failure: &Failure) {
        self.send(&Event::Error { message: failure.message.clone(), hint: failure.hint.clone(), fault: failure.fault });
    }

    /// The notes so far.
    ///
    /// # Panics
    /// When another thread panicked while it wrote a note.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().expect("no reporter panics").clone()
    }

    /// The facts so far.
    ///
    /// # Panics
    /// When another thread panicked while it wrote a fact.
    pub fn facts(&self) -> Map<String, Value> {
        self.facts.lock().expect("no reporter panics").clone()
    }
}
