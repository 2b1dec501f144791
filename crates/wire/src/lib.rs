//! What `mergelab` and the programs it starts say to each other.
//!
//! The orchestrator writes one *stage file* (JSON) per child and starts the child with its path. The child writes its
//! results under the directory that the file names, and appends *events* (JSON Lines) to a second file, which the
//! orchestrator tails. Files rather than pipes: what a child said outlives both programs, and a full pipe can never
//! block a computation.
//!
//! Both programs are built from this crate, and a child refuses a stage file of another [`VERSION`] at start
//! ([`VersionMismatch`]), so a stale binary on a path is an error and not a wrong result.
//!
//! Version history: 1, the first; 2, Grams of a range of rows (`range`) and their sum (`add-grams`), token ids for other
//! engines (`tokens`), files with their digests ([`Event::Written`]), the size of shards, merges that capture (`capture`); 3,
//! Fisher information (`fisher`); 4, Grams imported and exported (`import-grams`, `export-grams`); 5, weights by
//! tensor name, parameters of single models (`params`), and LoRA adapters (`apply-lora`,
//! `extract-lora`); 6, rows of embeddings by their tokens (`alignment`), merges of slices (`slices`), and how two models differ
//! (`diff`).

mod difference;
mod events;
mod job;
mod merge;
mod place;
mod vocabulary;

pub use difference::{
    Compared, DIFFERENCE, DIFFERENCE_FORMAT, DiffJob, DiffSide, Difference, LargestEntry, LoneTensor, Sums,
    TensorDifference,
};
pub use events::{Event, EventReader, EventWriter, Fault};
pub use job::{
    AddGramsJob, Alignment, Alpha, ApplyLoraJob, Engine, ExportGramsJob, ExtractLoraJob, FisherJob, GramFiles, GramJob,
    GramPart, ImportGramsJob, Job, Labels, LoraSize, LossJob, LossSource, MergeJob, MergeSource, Message,
    NATIVE_FAMILIES, NamedWeight, Normalize, RowRange, RowSource, Rows, Rule, RuleUse, Solver, StageFile, TokenMask,
    TokenRow, VersionMismatch, Weight,
};
pub use merge::{MergeSlice, SliceSource, fits};
pub use place::{Layer, Place};
pub use vocabulary::{TokenIds, TwoIds};

/// Version of the stage file and of the events; raised whenever either changes its meaning.
pub const VERSION: u32 = 6;

/// Exit codes that children and `mergelab` itself use.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// A stage failed, or what it needs is not there.
    pub const FAILED: u8 = 1;
    /// Usage: flags, no such file, no such stage.
    pub const USAGE: u8 = 2;
    /// The experiment is wrong: the file, a source it names, shapes or vocabularies that do not fit.
    pub const EXPERIMENT: u8 = 3;
    /// The store or the lock file does not agree.
    pub const DISAGREES: u8 = 4;
    /// Interrupted by a signal.
    pub const INTERRUPTED: u8 = 130;
}
