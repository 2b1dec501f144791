//! Standard output, where a reader that goes away (`| head`) is no error, and a full disk is.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

static LOST: AtomicBool = AtomicBool::new(false);

/// Prints text.
pub(super) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        say!("error: cannot write to standard output: {error}");
    }
}

/// Whether something could not be printed.
pub(super) fn was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(value).expect("what is printed becomes JSON");
    text.push('\n');
    print(&text);
}

/// Prints a value as one line of JSON.
pub(super) fn print_json_line(value: &impl Serialize) {
    let mut text = serde_json::to_string(value).expect("what is printed becomes JSON");
    text.push('\n');
    print(&text);
}
