//! Patterns of file names as `datasets` takes them, and those that it tries where a repository names none.
//!
//! A `*` stays within a name, a `**` stands for any number of directories and for nothing but whole ones. What is hidden
//! (`.name`) or special (`__name`) is matched only by a pattern that says so.

use globset::GlobBuilder;

use super::format;

/// What is never taken for data, unless a pattern ends in that name.
const NOT_DATA: [&str; 6] =
    ["README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "dataset_dict.json"];

/// What may stand before and after the name of a split in a file's or directory's name.
const BESIDE: &str = "[-._ 0-9]";

/// The splits whose names are looked for, with the words that mean them.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// A split and the patterns of its files.
pub(super) type SplitPatterns = (String, Vec<String>);

/// Why a pattern cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadPattern(pub(super) &'static str);

/// Whether a text is a pattern, and not just a name.
pub(super) fn has_magic(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files that a pattern matches, in the order of their paths. `below` is the directory that it starts in, which may
/// hold wildcards too.
pub(super) fn matching<'p>(paths: &[&'p str], below: &str, pattern: &str) -> Result<Vec<&'p str>, BadPattern> {
    if pattern.contains("://") {
        return Err(BadPattern("it names files of another place"));
    }
    let pattern = normal(&format!("{below}/{pattern}"));
    let last = pattern.rsplit('/').next().unwrap_or_default();
    let is_candidate = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        (name == last || !NOT_DATA.contains(&name)) && unusual(path) == unusual(&pattern)
    };
    let mut found: Vec<&str> = if has_magic(&pattern) {
        if pattern.split('/').any(|part| part.len() > 2 && part.contains("**")) {
            return Err(BadPattern("`**` stands for whole directories, and for nothing else"));
        }
        let glob = GlobBuilder::new(&literal(&pattern)).literal_separator(true).backslash_escape(false).build();
        let glob = glob.map_err(|_| BadPattern("it is no pattern of file names"))?.compile_matcher();
        paths.iter().copied().filter(|path| glob.is_match(path)).filter(is_candidate).collect()
    } else {
        paths.iter().copied().filter(|path| **path == pattern).filter(is_candidate).collect()
    };
    found.sort_unstable();
    Ok(found)
}

/// The patterns of each split where a repository, or the directory `below` in it, does not say which files are whose:
/// those of the first kind that finds anything. None where there is nothing at all.
pub(super) fn defaults(paths: &[&str], below: &str) -> Option<Vec<SplitPatterns>> {
    let finds = |pattern: &str| matching(paths, below, pattern).is_ok_and(|found| !found.is_empty());
    if let Ok(found @ [_, ..]) = matching(paths, below, &sharded("*")).as_deref() {
        return Some(sharded_splits(found));
    }
    let named = |form: fn(&str) -> Vec<String>| -> Vec<SplitPatterns> {
        let of_words = |words: &[&str]| words.iter().flat_map(|word| form(word)).collect();
        SPLITS.iter().map(|(split, words)| ((*split).to_owned(), of_words(words))).collect()
    };
    let one = |split: &str, patterns: &[&str]| {
        vec![(split.to_owned(), patterns.iter().map(|&pattern| pattern.to_owned()).collect())]
    };
    let kinds = [
        one("logs", &["**/*.eval"]),
        one("test", &["**/task.toml", "**/instruction.md"]),
        named(in_directory_name),
        named(in_file_name),
        one("train", &["**"]),
    ];
    kinds.into_iter().find_map(|mut splits| {
        splits.retain(|(_, patterns)| patterns.iter().any(|pattern| finds(pattern)));
        (!splits.is_empty()).then_some(splits)
    })
}

/// Files of a split in numbered parts: `data/train-00000-of-00003.parquet`.
fn sharded(split: &str) -> String {
    let number = "[0-9]".repeat(5);
    format!("data/{split}-{number}-of-{number}*.*")
}

/// The splits of files that are named like that: the usual ones first, the others by name.
fn sharded_splits(found: &[&str]) -> Vec<SplitPatterns> {
    let mut splits: Vec<&str> = found.iter().filter_map(|path| split_of(path.rsplit('/').next()?)).collect();
    let rank = |split: &str| SPLITS.iter().position(|(usual, _)| *usual == split).unwrap_or(SPLITS.len());
    splits.sort_unstable_by_key(|split| (rank(split), *split));
    splits.dedup();
    splits.into_iter().map(|split| (split.to_owned(), vec![sharded(split)])).collect()
}

/// What stands before the last `-00000-of-00003` of a file's name.
fn split_of(name: &str) -> Option<&str> {
    let is_number = |text: Option<&str>| text.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    name.rmatch_indices("-of-").find_map(|(at, _)| {
        let start = at.checked_sub(6)?;
        let is_part = name.get(start..=start) == Some("-")
            && is_number(name.get(start + 1..at))
            && is_number(name.get(at + 4..at + 9));
        is_part.then(|| &name[..start]).filter(|split| !split.is_empty())
    })
}

fn in_directory_name(word: &str) -> Vec<String> {
    vec![
        format!("**/{word}/**"),
        format!("**/{word}{BESIDE}*/**"),
        format!("**/*{BESIDE}{word}/**"),
        format!("**/*{BESIDE}{word}{BESIDE}*/**"),
    ]
}

fn in_file_name(word: &str) -> Vec<String> {
    vec![format!("**/{word}{BESIDE}*"), format!("**/*{BESIDE}{word}{BESIDE}*")]
}

/// The files of a split: for each pattern in turn those that may be data. A file that two patterns match is there twice,
/// as `datasets` has it.
///
/// # Errors
/// The pattern that cannot be followed or, being just a name, matches nothing, and why.
pub(super) fn files<'p>(
    paths: &[&'p str],
    below: &str,
    patterns: &[String],
) -> Result<Vec<&'p str>, (String, BadPattern)> {
    let mut files = Vec::new();
    for pattern in patterns {
        let mut found = matching(paths, below, pattern).map_err(|error| (pattern.clone(), error))?;
        found.retain(|path| format::may_be_data(path));
        if found.is_empty() && !has_magic(pattern) {
            return Err((pattern.clone(), BadPattern("there is no such file of data")));
        }
        files.extend(found);
    }
    Ok(files)
}

/// Without `.` and empty parts.
fn normal(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// How many parts of a path are hidden, and how many directories in it are special.
fn unusual(path: &str) -> (usize, usize) {
    let hidden = path.split('/').filter(|part| part.starts_with('.') && part.chars().any(|letter| letter != '.'));
    let directories = path.rsplit_once('/').map_or("", |(directories, _)| directories);
    (hidden.count(), directories.split('/').filter(|part| part.starts_with("__")).count())
}

/// A pattern in which what has a meaning for the library alone stands for itself: `{`, `}`, and a `[` that is not closed.
fn literal(pattern: &str) -> String {
    let mut spelled = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        match first {
            '{' | '}' => spelled.push_str(&format!("[{first}]")),
            '[' => {
                // A `]` right behind the opening, or behind its `!`, is one of the characters.
                let skipped = 1 + usize::from(after.starts_with('!'));
                let end = after.char_indices().skip(skipped).find(|(_, letter)| *letter == ']').map(|(at, _)| at);
                let Some(end) = end else {
                    spelled.push_str("[[]");
                    rest = after;
                    continue;
                };
                spelled.push_str(&rest[..end + 2]);
                rest = &after[end + 1..];
                continue;
            }
            _ => spelled.push(first),
        }
        rest = after;
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'p>(paths: &[&'p str], pattern: &str) -> Vec<&'p str> {
        matching(paths, "", pattern).unwrap()
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_stand_for_directories() {
        let paths = ["a.csv", "d/b.csv", "d/e/c.csv", "d/e/README.md"];
        assert_eq!(found(&paths, "*.csv"), ["a.csv"]);
        assert_eq!(found(&paths, "**/*.csv"), ["a.csv", "d/b.csv", "d/e/c.csv"]);
        assert_eq!(found(&paths, "d/**"), ["d/b.csv", "d/e/c.csv"]);
        assert_eq!(found(&paths, "**"), ["a.csv", "d/b.csv", "d/e/c.csv"]);
        assert_eq!(found(&paths, "./d/?.csv"), ["d/b.csv"]);
        assert_eq!(found(&paths, "d/e/README.md"), ["d/e/README.md"]);
        assert_eq!(matching(&paths, "d", "e/*").unwrap(), ["d/e/c.csv"]);
        assert!(matching(&paths, "", "d**.csv").is_err());
    }

    #[test]
    fn what_only_the_library_gives_a_meaning_stands_for_itself() {
        let paths = ["x{1,2}.csv", "x1.csv", "[x.csv", "a]b.csv", "a\\b.csv"];
        assert_eq!(found(&paths, "x{1,2}.*"), ["x{1,2}.csv"]);
        assert_eq!(found(&paths, "[x.c*"), ["[x.csv"]);
        assert_eq!(found(&paths, "a[]]*"), ["a]b.csv"]);
        assert_eq!(found(&paths, "a\\*"), ["a\\b.csv"]);
        assert_eq!(found(&paths, "x[!{]*"), ["x1.csv"]);
    }

    #[test]
    fn what_is_hidden_or_special_has_to_be_asked_for() {
        let paths = [".gitattributes", ".d/a.csv", "__pycache__/b.csv", "__c.csv"];
        assert_eq!(found(&paths, "**"), ["__c.csv"]);
        assert_eq!(found(&paths, ".d/*"), [".d/a.csv"]);
        assert_eq!(found(&paths, "__*/*"), ["__pycache__/b.csv"]);
    }

    fn splits(paths: &[&str]) -> Vec<(String, Vec<String>)> {
        let splits = defaults(paths, "").unwrap_or_default();
        splits
            .iter()
            .map(|(split, patterns)| {
                let files = files(paths, "", patterns).unwrap();
                (split.clone(), files.into_iter().map(ToOwned::to_owned).collect())
            })
            .collect()
    }

    fn split(name: &str, files: &[&str]) -> (String, Vec<String>) {
        (name.to_owned(), files.iter().map(|&file| file.to_owned()).collect())
    }

    #[test]
    fn splits_are_told_by_names_of_parts_then_of_directories_then_of_files() {
        let parts = ["data/b-00000-of-00001.parquet", "data/train-00000-of-00002-ab.parquet", "train.csv"];
        assert_eq!(splits(&parts), [split("train", &parts[1..2]), split("b", &parts[..1])]);
        let directories = ["a/dev_1/x.csv", "a/train/x.csv", "test.csv"];
        assert_eq!(splits(&directories), [split("train", &directories[1..2]), split("validation", &directories[..1])]);
        let files = ["d/my-eval.csv", "d/training_2.csv", "d/trainable.csv", "d/val.csv"];
        assert_eq!(
            splits(&files),
            [split("train", &files[1..2]), split("validation", &files[3..]), split("test", &files[..1])]
        );
        assert_eq!(splits(&["x.csv", "y.csv", ".gitattributes"]), [split("train", &["x.csv", "y.csv"])]);
        assert_eq!(splits(&["README.md", ".gitattributes"]), []);
    }

    #[test]
    fn the_split_of_a_part_is_all_that_stands_before_its_number() {
        assert_eq!(split_of("train-00000-of-00003.parquet"), Some("train"));
        assert_eq!(split_of("a-00001-of-00002-b-00000-of-00001-0123.parquet"), Some("a-00001-of-00002-b"));
        assert_eq!(split_of("-00000-of-00001.parquet"), None);
        assert_eq!(split_of("é-of-00001"), None);
    }
}
