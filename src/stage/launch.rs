//! Programs that stages start, and the trait behind which they are started: real ones, or scripted ones in tests.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mergelab_wire::Event;

/// Variables that hold a token of the hub, or say where one lies. A program that does not ask the hub is started without
/// them: only evaluations, whose harness may load a gated data set or tokenizer, are told.
pub(super) const TOKENS: [&str; 3] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"];

/// A program to be started.
pub struct Program<'a> {
    /// What to start.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where.
    pub directory: PathBuf,
    /// Added to the environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Taken out of the environment.
    pub unset: Vec<OsString>,
    /// Locks that it holds with us.
    pub locks: Vec<&'a File>,
    /// File that receives what it prints.
    pub log: PathBuf,
    /// File to which it appends events.
    pub events: Option<PathBuf>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long it may say nothing, neither by an event nor in its log.
    pub stalled_after: Option<Duration>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code; above 128 by a signal.
    Code(i32),
    /// It took too long.
    TimedOut,
    /// It said nothing for so long.
    Stalled(Duration),
    /// We were told to stop.
    Interrupted,
}

/// Starts programs.
pub trait Launcher: Sync {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// When it cannot be started or watched.
    fn run(&self, program: &Program<'_>, on_event: &mut dyn FnMut(Event)) -> io::Result<Ending>;

    /// Whether everything is to come to an end: asked by stages that take long without a program.
    fn is_stopped(&self) -> bool {
        false
    }
}
