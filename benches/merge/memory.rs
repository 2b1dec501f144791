//! How much memory a program and all that it starts hold together, beyond mapped files.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Looks at a process and its descendants every ten milliseconds.
pub(crate) struct Watch {
    done: Arc<AtomicBool>,
    looking: JoinHandle<u64>,
}

impl Watch {
    /// From now on.
    pub(crate) fn of(process: u32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let looking = thread::spawn(move || {
            let mut peak = 0;
            while !seen.load(Ordering::Relaxed) {
                peak = peak.max(held(process));
                thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        Self { done, looking }
    }

    /// The most that was held, in bytes.
    pub(crate) fn peak(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or(0)
    }
}

/// Bytes that a process and its descendants hold now.
fn held(process: u32) -> u64 {
    let mut parents: HashMap<u32, (u32, u64)> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        let parent = field("PPid:").unwrap_or(0) as u32;
        parents.insert(id, (parent, field("RssAnon:").unwrap_or(0) << 10));
    }
    let belongs = |mut id: u32| {
        while id != process {
            match parents.get(&id) {
                Some((parent, _)) if *parent != 0 => id = *parent,
                _ => return false,
            }
        }
        true
    };
    parents.iter().filter(|(id, _)| belongs(**id)).map(|(_, (_, bytes))| bytes).sum()
}
