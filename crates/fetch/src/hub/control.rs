//! What holds for everything that a client does: an end that somebody asks for, and notes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::HubError;

/// How often somebody who waits looks whether to go on.
const TICK: Duration = Duration::from_millis(50);

type Note = Box<dyn Fn(&str) + Send + Sync>;

/// Shared by all threads of a client.
#[derive(Default)]
pub(super) struct Control {
    is_stopped: AtomicBool,
    note: Option<Note>,
}

impl Control {
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// An error once somebody asked for an end.
    pub(super) fn check(&self) -> Result<(), HubError> {
        if self.is_stopped.load(Ordering::Relaxed) { Err(HubError::Stopped) } else { Ok(()) }
    }

    /// Waits, unless somebody asks for an end.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), HubError> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    pub(super) fn tell(&mut self, note: Note) {
        self.note = Some(note);
    }

    pub(super) fn note(&self, message: &str) {
        if let Some(note) = &self.note {
            note(message);
        }
    }
}
