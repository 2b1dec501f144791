//! Files that are somebody else's, and to which an artifact only points.

use std::path::Path;

use super::{Stamp, Store};
use crate::artifact::Output;

impl Store {
    /// Whether a file is what an artifact says of it, by what was hashed before: nothing is hashed now.
    pub fn is_as_known(&self, path: &Path, output: &Output) -> bool {
        let stamp = std::fs::metadata(path).map(|metadata| Stamp::of(&metadata));
        stamp.is_ok_and(|stamp| stamp.size() == output.size && self.stats.known(&stamp) == Some(output.sha256))
    }

    /// Takes down the digest of a file that was hashed just now, while it was written or since.
    pub fn learn(&self, path: &Path, output: &Output) {
        if let Ok(metadata) = std::fs::metadata(path) {
            self.stats.learn(Stamp::of(&metadata), output.sha256);
        }
    }
}
