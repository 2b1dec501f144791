//! Standard output, where a reader that goes away (`| head`) is no error.

use std::io::{self, Write};

use serde::Serialize;

/// Prints text.
pub(super) fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
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
    let _ = io::stdout().lock().flush();
}
