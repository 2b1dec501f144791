//! What went wrong in a stage.

use std::path::{Path, PathBuf};

use mergelab_wire::Fault;

use super::launch::Ending;
use crate::store::StoreError;

/// How many lines of a log are shown with a failure.
const TAIL_LINES: usize = 15;

/// Why a stage has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whose fault it is.
    pub fault: Fault,
    /// Log of the stage's program.
    pub log: Option<PathBuf>,
    /// We were told to stop.
    pub interrupted: bool,
}

impl Failure {
    /// The work failed, or what it needs is missing.
    pub fn stage(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, hint: None, fault: Fault::Stage, log: None, interrupted: false }
    }

    /// The experiment is wrong.
    pub fn experiment(message: impl Into<String>) -> Self {
        Self { fault: Fault::Experiment, ..Self::stage(message) }
    }

    /// We were told to stop.
    pub fn interrupted() -> Self {
        Self { interrupted: true, ..Self::stage("interrupted") }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With the log that says more.
    #[must_use]
    pub fn with_log(self, log: &Path) -> Self {
        Self { log: Some(log.to_path_buf()), ..self }
    }

    /// Of a program that ended otherwise than well and said nothing about it; what it printed last is shown.
    pub fn of_program(name: &str, ending: Ending, log: &Path) -> Self {
        let what = match ending {
            Ending::Interrupted => return Self::interrupted(),
            Ending::TimedOut => format!("{name} took longer than its timeout"),
            Ending::Stalled(limit) => {
                format!("{name} showed no sign of progress for {} s and was ended", limit.as_secs_f64())
            }
            Ending::Code(137) => format!("{name} was killed (SIGKILL): out of memory, perhaps"),
            Ending::Code(code @ 129..=192) => format!("{name} was ended by signal {}", code - 128),
            Ending::Code(127) => format!("{name} could not be started"),
            Ending::Code(code) => format!("{name} ended with exit code {code}"),
        };
        if is_full(log) {
            let disk = log.parent().unwrap_or(log).display();
            return Self::stage(format!("{what}: no space left on the disk that holds {disk}"))
                .hint("free some space, or set `[store] path` in mergelab.toml; nothing was lost")
                .with_log(log);
        }
        let last = tail(log);
        let message = if last.is_empty() { what } else { format!("{what}; its last lines:\n{}", last.join("\n")) };
        Self::stage(message).with_log(log)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::stage(error.to_string());
        match error {
            StoreError::Full { .. } => {
                failure.hint("free some space, or set `[store] path` in mergelab.toml; nothing was lost")
            }
            StoreError::Differs { .. } => failure.hint(
                "the device is the same, so something else changed (libtorch?): `--force` of this stage takes what it gives now, and what rests on it runs again",
            ),
            StoreError::Empty { .. } => failure.hint("the program must write its result into {out}"),
            _ => failure,
        }
    }
}

/// Whether the disk of a file has so little room left that a program may not even have been able to say so.
fn is_full(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < 1 << 19)
}

/// What stands before a command at the head of a log, which is ours and not the program's.
pub(super) const PROMPT: &str = "$ ";

/// The last lines that a program printed.
pub fn tail(log: &Path) -> Vec<String> {
    let text = end_of(log);
    // A progress bar rewrites its line: only what stands at its end counts.
    let lines = text.lines().map(|line| line.rsplit('\r').next().unwrap_or(line).trim_end());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(PROMPT));
    let lines: Vec<_> = lines.map(|line| format!("  {line}")).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
}

/// The last kilobytes of a log; nothing where it cannot be read.
pub(super) fn end_of(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let read = std::fs::File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(1 << 16)))?;
        file.read_to_end(&mut bytes)
    });
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}
