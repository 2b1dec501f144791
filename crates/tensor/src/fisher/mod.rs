//! The diagonal of a model's Fisher information, by gradients of its likelihood.
//!
//! ```text
//! F_j = 1/n · Σ_s ( ∂/∂θ_j  Σ_{t ∈ s} log p(y_t | x_<t) )²
//! ```
//!
//! over sequences `s` and the `n` tokens `t` in them that count and that something precedes. `y_t` is the token that stands
//! there (the *empirical* Fisher), or one that the model draws from its own prediction at that place (the Fisher information
//! itself, in expectation). Given the text, drawn labels are independent and the gradients of their log-likelihoods have mean
//! zero: the square of a sequence's sum is in expectation the sum of its tokens' squares, and `F` a mean over tokens, like
//! a Gram matrix, whatever the length of the sequences.
//!
//! Gradients go through one layer at a time ([`passes`]): on the way up the hidden states before each layer are kept; on the way down
//! a layer runs again on them, and the gradient that comes out at its lower end takes their place.
//!
//! The artifact ([`index`]) holds one file of fp32 tensors a layer, under the names and in the shapes of the checkpoint.

pub mod error;
pub mod estimate;
pub mod index;
mod labels;
mod passes;
mod squares;

pub use error::FisherError;
pub use index::FisherSet;
