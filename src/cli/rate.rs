//! How fast something goes, and how long it has to go: over the last seconds, since what was there already is only looked
//! at and would make what comes look fast.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::exec::size;

/// What counts.
const WINDOW: Duration = Duration::from_secs(10);

/// Before there is that much to look at nothing is said.
const LEAST: Duration = Duration::from_secs(1);

/// Bytes that were done at some times, oldest first.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

/// How it goes at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    pub(super) bytes_per_second: f64,
    pub(super) seconds_left: f64,
}

impl Rate {
    /// Takes down how much is done, and says how it goes; nothing as long as that is not known.
    pub(super) fn at(&mut self, now: Instant, done: u64, total: u64) -> Option<Pace> {
        if self.samples.back().is_some_and(|&(_, before)| done < before) {
            self.samples.clear();
        }
        self.samples.push_back((now, done));
        // One sample from before the window stays, so that the window is whole.
        while self.samples.get(1).is_some_and(|&(time, _)| now.saturating_duration_since(time) >= WINDOW) {
            self.samples.pop_front();
        }
        let &(since, before) = self.samples.front()?;
        let seconds = now.saturating_duration_since(since);
        if seconds < LEAST || done == before {
            return None;
        }
        let bytes_per_second = (done - before) as f64 / seconds.as_secs_f64();
        Some(Pace { bytes_per_second, seconds_left: total.saturating_sub(done) as f64 / bytes_per_second })
    }
}

/// `1.2 GiB of 16 GiB, 85 MiB/s, 3 min left`.
pub(super) fn in_words(done: u64, total: u64, pace: Option<Pace>) -> String {
    let mut text = format!("{} of {}", size(done), size(total));
    if let Some(Pace { bytes_per_second, seconds_left }) = pace.filter(|_| done < total) {
        text += &format!(", {}/s, {} left", size(bytes_per_second as u64), time(seconds_left));
    }
    text
}

fn time(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=5999 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        // What was there already.
        assert_eq!(rate.at(at(0), 0, 2000), None);
        assert_eq!(rate.at(at(0), 1000, 2000), None);
        for second in 1..=20 {
            rate.at(at(second), 1000 + 10 * second, 2000);
        }
        let pace = rate.at(at(21), 1210, 2000).unwrap();
        assert_eq!(pace, Pace { bytes_per_second: 10.0, seconds_left: 79.0 });
        assert_eq!(rate.at(at(22), 0, 2000), None, "it began anew");
    }

    #[test]
    fn it_is_told_in_units_that_a_person_would_use() {
        let pace = |seconds_left| Some(Pace { bytes_per_second: 85.0 * 1024.0 * 1024.0, seconds_left });
        assert_eq!(in_words(3 << 29, 16 << 30, pace(170.2)), "1.5 GiB of 16 GiB, 85 MiB/s, 3 min left");
        assert_eq!(in_words(1 << 20, 2 << 20, pace(0.2)), "1 MiB of 2 MiB, 85 MiB/s, 1 s left");
        assert_eq!(in_words(1 << 20, 2 << 20, pace(9000.0)), "1 MiB of 2 MiB, 85 MiB/s, 2.5 h left");
        assert_eq!(in_words(2 << 20, 2 << 20, pace(0.0)), "2 MiB of 2 MiB");
        assert_eq!(in_words(0, 5, None), "0 B of 5 B");
    }
}
