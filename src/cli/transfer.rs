//! How far a copy or an upload is: bytes, rate and time left; a bar on a terminal, now and then a line elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::error::colour_on_stderr;
use super::rate::{Rate, in_words};

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Progress over so many bytes.
pub(super) struct Transfer {
    bar: Option<ProgressBar>,
    verb: &'static str,
    total: u64,
    done: u64,
    rate: Rate,
    said: Instant,
}

impl Transfer {
    /// Of `total` bytes; `verb` is what happens to them.
    pub(super) fn new(verb: &'static str, total: u64) -> Self {
        let bar = colour_on_stderr().then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {msg}");
            let bar = ProgressBar::new(total);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(verb);
            bar
        });
        Self { bar, verb, total, done: 0, rate: Rate::default(), said: Instant::now() }
    }

    /// So many more bytes are through; fewer than none where some have to be sent again.
    pub(super) fn advance(&mut self, bytes: i64) {
        self.done = self.done.saturating_add_signed(bytes);
        let now = Instant::now();
        let pace = self.rate.at(now, self.done, self.total);
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done);
                bar.set_message(in_words(self.done, self.total, pace));
            }
            None if now.duration_since(self.said) >= PAUSE => {
                self.said = now;
                say!("{} {}", self.verb, in_words(self.done, self.total, pace));
            }
            None => {}
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
