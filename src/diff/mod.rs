//! What differs between two models, two sets of results or two experiments, as values: what the tensor program, files and
//! stores say goes in, figures come out with their text and their JSON. Nothing here reads a file.
//!
//! Everywhere the first side is A and the second B, and a difference is B minus A.

mod entries;
mod figures;
mod models;
mod natural;
mod number;
mod scores;
#[cfg(test)]
mod tests;

pub use entries::{Change, Entries, Entry};
pub use figures::{Figures, Largest};
pub use models::{Group, Models, Tensor};
pub use scores::{Pairing, Score, Scores, match_up};
