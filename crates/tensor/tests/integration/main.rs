//! `mergelab-tensor` from the outside: stage files in, artifacts and events out.
//!
//! What is held against `transformers` needs a Python with it (`MERGELAB_PYTHON`, `VIRTUAL_ENV` or the project's `.venv`);
//! where there is none those tests say that they skipped.

mod alpha;
mod capture;
mod depth;
mod diff;
mod errors;
mod fisher;
mod imports;
mod lora;
mod loss;
mod mats;
mod memory;
mod merging;
mod methods;
mod outputs;
mod pickled;
mod real;
mod regmean_plus_plus;
mod shards;
mod slices;
mod support;
mod templates;
mod threads;
mod tokens;
mod transformers;
mod transposed;
mod vocabularies;
