//! What an artifact is made of, as plain values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Path inside the artifact, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of its contents.
    pub sha256: Digest,
    /// Not part of the artifact's digest: it names times, people or places.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aside: bool,
    /// Deleted on purpose; can be made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

/// Whether files of an artifact were deleted on purpose.
pub fn any_dropped(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| output.dropped)
}

/// Digest of an artifact: of the sorted paths and digests of its files.
pub fn artifact_digest(outputs: &[Output]) -> Digest {
    let mut files: Vec<_> =
        outputs.iter().filter(|output| !output.aside).map(|file| (&file.path, &file.sha256)).collect();
    files.sort();
    Digest::of(&serde_json::to_vec(&files).expect("strings become JSON"))
}

/// The part of an artifact under a path: one file, or a directory's files with their paths relative to it.
pub fn subtree(outputs: &[Output], path: &str) -> Vec<Output> {
    let prefix = format!("{path}/");
    outputs
        .iter()
        .filter_map(|output| {
            let path = if output.path == path { path } else { output.path.strip_prefix(&prefix)? };
            Some(Output { path: path.to_owned(), ..output.clone() })
        })
        .collect()
}

/// Digests of the parts of a model directory that are read separately: `weights`, `config`, `generation`, `tokenizer`
/// and `template`, for those that it has. Files in subdirectories and others (a card, a licence) have no role.
///
/// `tokenizer_config.json` may hold the chat template, and so counts in both.
pub fn model_roles(files: &[Output]) -> BTreeMap<String, Digest> {
    let mut roles: BTreeMap<&str, Vec<Output>> = BTreeMap::new();
    for file in files {
        for role in roles_of(&file.path) {
            roles.entry(role).or_default().push(file.clone());
        }
    }
    roles.into_iter().map(|(role, files)| (role.to_owned(), artifact_digest(&files))).collect()
}

/// Whether a file of a model directory is read where only its tokenizer is used.
pub fn is_of_tokenizer(path: &str) -> bool {
    roles_of(path).iter().any(|role| matches!(*role, "tokenizer" | "template" | "config"))
}

/// Digest of what is read of an adapter's directory, under the role `adapter`.
pub fn adapter_roles(files: &[Output]) -> BTreeMap<String, Digest> {
    let read: Vec<Output> = files.iter().filter(|file| is_of_adapter(&file.path)).cloned().collect();
    if read.is_empty() { BTreeMap::new() } else { BTreeMap::from([("adapter".to_owned(), artifact_digest(&read))]) }
}

/// Whether a file of an adapter's directory is read where it is applied.
pub fn is_of_adapter(path: &str) -> bool {
    path == ADAPTER_CONFIG || ADAPTER_TENSORS.contains(&path)
}

/// What an adapter says of itself.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Files that hold an adapter's tensors, in the order in which they are looked for.
pub const ADAPTER_TENSORS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// Whether a file of a directory of Gram matrices is read where they are imported.
pub fn is_of_grams(path: &str) -> bool {
    matches!(path, "index.json" | "layers.json") || path.ends_with(".safetensors") && !path.contains('/')
}

/// Whether a file of a repository is read of a model: it has a role.
pub fn is_of_model(path: &str) -> bool {
    !roles_of(path).is_empty()
}

/// Whether a file of a model directory holds weights, or says which files do.
pub fn is_weights_file(path: &str) -> bool {
    roles_of(path).contains(&"weights")
}

fn roles_of(path: &str) -> &'static [&'static str] {
    match path {
        "config.json" => &["config"],
        "generation_config.json" => &["generation"],
        "tokenizer_config.json" => &["tokenizer", "template"],
        "chat_template.jinja" | "chat_template.json" => &["template"],
        "tokenizer.json"
        | "tokenizer.model"
        | "special_tokens_map.json"
        | "added_tokens.json"
        | "tekken.json"
        | "vocab.json"
        | "vocab.txt"
        | "merges.txt"
        | "spiece.model"
        | "sentencepiece.bpe.model" => &["tokenizer"],
        _ if path.starts_with("additional_chat_templates/") => &["template"],
        _ if path.contains('/') => &[],
        _ if path.ends_with(".safetensors") || path.ends_with(".safetensors.index.json") => &["weights"],
        _ if path.starts_with("pytorch_model") && (path.ends_with(".bin") || path.ends_with(".bin.index.json")) => {
            &["weights"]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Output {
        Output { path: path.to_owned(), size: 0, sha256: Digest::of(path.as_bytes()), aside: false, dropped: false }
    }

    #[test]
    fn the_digest_does_not_depend_on_order_nor_on_files_set_aside() {
        let (one, two) = (file("a"), file("b"));
        let card = Output { aside: true, ..file("README.md") };
        let digest = artifact_digest(&[one.clone(), two.clone()]);
        assert_eq!(digest, artifact_digest(&[two.clone(), card, one.clone()]));
        assert_ne!(digest, artifact_digest(&[one]));
    }

    #[test]
    fn a_card_changes_no_role_of_a_model_and_its_weights_change_one() {
        let files = [file("config.json"), file("model.safetensors"), file("tokenizer_config.json"), file("README.md")];
        let roles = model_roles(&files);
        assert_eq!(roles.keys().collect::<Vec<_>>(), ["config", "template", "tokenizer", "weights"]);
        let mut other = files.clone();
        other[3].sha256 = Digest::of(b"another card");
        assert_eq!(model_roles(&other), roles);
        other[1].sha256 = Digest::of(b"other weights");
        let changed: Vec<_> = model_roles(&other)
            .into_iter()
            .filter(|(role, digest)| roles[role] != *digest)
            .map(|(role, _)| role)
            .collect();
        assert_eq!(changed, ["weights"]);
    }

    #[test]
    fn a_subtree_is_a_file_or_a_directory_but_no_prefix_of_a_name() {
        let files = [file("math.jsonl"), file("math/a"), file("mathematics")];
        let paths = |path| subtree(&files, path).into_iter().map(|file| file.path).collect::<Vec<_>>();
        assert_eq!(paths("math"), ["a"]);
        assert_eq!(paths("math.jsonl"), ["math.jsonl"]);
        assert_eq!(paths("ma"), Vec::<String>::new());
    }
}
