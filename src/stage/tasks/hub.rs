//! Which revision of a hub data set an evaluation on this machine would read: evaluations do not ask the hub, so it is the
//! newest that the cache of `datasets` holds, `ORG___NAME/CONFIG/VERSION/COMMIT` below its directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where `datasets` keeps what it prepared.
pub(super) fn cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let below = |dir: PathBuf, inner: &str| dir.join(inner);
    variable("HF_DATASETS_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| below(home, "datasets")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|home| below(home, "huggingface/datasets")))
        .or_else(|| variable("HOME").map(|home| below(home, ".cache/huggingface/datasets")))
}

/// Whether a text can be the name of a data set on the hub: `NAME` or `ORG/NAME`.
pub(super) fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        part.starts_with(|first: char| first.is_ascii_alphanumeric()) && part.chars().all(is_good)
    };
    text.split('/').count() <= 2 && text.split('/').all(is_part)
}

/// Commits of a data set in a cache, by configuration: of those that are named, of all where none is.
pub(super) fn revisions(cache: &Path, name: &str, configs: &BTreeSet<String>) -> Vec<(String, String)> {
    let (organisation, own) =
        name.split_once('/').map_or((None, name), |(organisation, own)| (Some(organisation), own));
    let folder = organisation.map_or_else(String::new, |organisation| format!("{organisation}___")) + &snake_case(own);
    let mut found = Vec::new();
    for (config, dir) in directories(&cache.join(folder)) {
        // A configuration with further options has a digest of those after its name.
        let is_of = |named: &String| {
            config.strip_prefix(named.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        if !configs.is_empty() && !configs.iter().any(is_of) {
            continue;
        }
        let commits = directories(&dir).into_iter().flat_map(|(_, version)| directories(&version));
        if let Some((commit, _)) = commits.max_by_key(|(_, dir)| modified(dir)) {
            found.push((config, commit));
        }
    }
    found
}

/// Directories in a directory, by name; none where there is no such directory.
fn directories(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.path().is_dir());
    let mut named: Vec<_> =
        dirs.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    named.sort();
    named
}

fn modified(dir: &Path) -> SystemTime {
    dir.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A name as `datasets` spells it in its cache: `TruthfulQA` becomes `truthful_qa`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut spelled = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| letters[before]);
        let is_start = before.is_some_and(|before| before.is_ascii_lowercase() || before.is_ascii_digit());
        let is_last_of_many = before.is_some_and(|before| before.is_ascii_uppercase())
            && letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (is_start || is_last_of_many) {
            spelled.push('_');
        }
        spelled.push(letter.to_ascii_lowercase());
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_in_the_cache() {
        // `datasets.naming.camelcase_to_snakecase` says the same.
        for (name, spelled) in [
            ("gsm8k", "gsm8k"),
            ("openai_humaneval", "openai_humaneval"),
            ("TruthfulQA", "truthful_qa"),
            ("MMLU-Pro", "mmlu-pro"),
            ("HTMLPages2Text", "html_pages2_text"),
        ] {
            assert_eq!(snake_case(name), spelled);
        }
    }

    #[test]
    fn a_name_on_the_hub_is_one_or_two_plain_words() {
        assert!(["gsm8k", "openai/gsm8k", "TIGER-Lab/MMLU-Pro"].iter().all(|name| is_name(name)));
        assert!(!["", "a/b/c", "/data/x", "data/*.json", "../x", "https://host/x"].iter().any(|name| is_name(name)));
    }

    #[test]
    fn the_newest_commit_counts_of_the_configurations_that_are_named() {
        let cache = tempfile::tempdir().unwrap();
        let commit = |config: &str, name: &str, seconds: u64| {
            let dir = cache.path().join("openai___gsm8k").join(config).join("0.0.0").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::open(&dir).unwrap().set_modified(time).unwrap();
        };
        commit("main", "aaa", 20);
        commit("main", "bbb", 10);
        commit("socratic", "ccc", 30);
        let of = |configs: &[&str]| {
            revisions(cache.path(), "openai/gsm8k", &configs.iter().map(|&config| config.to_owned()).collect())
        };
        let pair = |config: &str, commit: &str| (config.to_owned(), commit.to_owned());
        assert_eq!(of(&["main"]), [pair("main", "aaa")]);
        assert_eq!(of(&[]), [pair("main", "aaa"), pair("socratic", "ccc")]);
        assert_eq!(of(&["mai"]), []);
        assert_eq!(revisions(cache.path(), "openai/other", &BTreeSet::new()), []);
    }
}
