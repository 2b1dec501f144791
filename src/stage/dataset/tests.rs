//! Repositories in directories: which files are chosen, held against what `datasets` chooses, and the rows out of them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use mergelab_fetch::hub::RemoteFile;
use serde_json::Value;

use super::read::Sequence;
use super::*;

/// The branch on which the hub keeps what it converted.
const CONVERSION: &str = "refs/convert/parquet";

/// A data set whose commits are directories.
struct Fake {
    root: tempfile::TempDir,
    fetched: RefCell<Vec<String>>,
}

impl Fake {
    fn new(files: &[(&str, &str)]) -> Self {
        let fake = Self { root: tempfile::tempdir().unwrap(), fetched: RefCell::default() };
        for (path, text) in files {
            fake.write("main", path, text.as_bytes());
        }
        fake
    }

    fn write(&self, commit: &str, path: &str, bytes: &[u8]) {
        let path = self.root.path().join(commit.replace('/', "%2F")).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn dir(&self, commit: &str) -> PathBuf {
        self.root.path().join(commit.replace('/', "%2F"))
    }

    fn find(&self, config: Option<&str>, split: &str) -> Result<Found, NotFound> {
        find(self, "main", Query { revision: None, config, split })
    }

    /// The first rows as JSON Lines, and which files were fetched for them.
    fn rows(&self, config: Option<&str>, split: &str, count: usize) -> Result<(String, Vec<String>), Failure> {
        let found = self.find(config, split)?;
        self.fetched.borrow_mut().clear();
        let mut fetch = |path: &str| Ok(self.fetch(&found.commit, found.file(path)).unwrap());
        let mut text = String::new();
        for row in Sequence::new(&found.choice, &mut fetch).take(count) {
            text.push_str(&format!("{}\n", Value::Object(row?)));
        }
        Ok((text, self.fetched.take()))
    }
}

impl DataRepository for Fake {
    fn name(&self) -> &'static str {
        "acme/sums"
    }

    fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, Failure> {
        let names = crate::store::list_files(&self.dir(commit), true).unwrap();
        let file = |path| RemoteFile { path, size: 0, sha256: None, oid: None };
        Ok(names.into_iter().map(file).collect())
    }

    fn fetch(&self, commit: &str, file: &RemoteFile) -> Result<PathBuf, Failure> {
        self.fetched.borrow_mut().push(file.path.clone());
        Ok(self.dir(commit).join(&file.path))
    }

    fn conversion(&self) -> Result<Option<String>, Failure> {
        Ok(self.dir(CONVERSION).is_dir().then(|| CONVERSION.to_owned()))
    }
}

/// `layouts.json`: repositories, and which files of them `datasets` reads (`layouts.py` beside it).
#[test]
fn the_files_and_their_order_are_those_that_datasets_reads() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows/layouts.json");
    let layouts: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert!(layouts.len() > 30, "{}", layouts.len());
    for layout in layouts {
        let list = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let (paths, readme) = (list(&layout["files"]), layout["readme"].as_str());
        let paths: Vec<&str> = paths.iter().map(|path| &**path).collect();
        let wanted = Wanted { config: layout["config"].as_str(), split: layout["split"].as_str().unwrap() };
        let card = Card::read(readme, None);
        let chosen = card.map_err(NoChoice::Header).and_then(|card| choose(&paths, "sums", &card, wanted));
        match &layout["chosen"] {
            Value::Null => assert!(chosen.is_err(), "{layout}: {chosen:?}"),
            expected => {
                let chosen = chosen.unwrap_or_else(|error| panic!("{layout}: {error}"));
                assert_eq!(chosen.files, list(&expected["files"]), "{layout}");
                assert_eq!(chosen.config, expected["config"].as_str().unwrap(), "{layout}");
            }
        }
    }
}

#[test]
fn a_file_is_fetched_only_when_rows_of_it_are_due() {
    let fake = Fake::new(&[
        ("data/train-00000-of-00003.jsonl", "{\"a\":1}\n{\"a\":2}\n"),
        ("data/train-00001-of-00003.jsonl", "{\"a\":3}\n"),
        ("data/train-00002-of-00003.jsonl", "{\"a\":4}\n"),
    ]);
    let (rows, fetched) = fake.rows(None, "train", 2).unwrap();
    assert_eq!((&*rows, &*fetched), ("{\"a\":1}\n{\"a\":2}\n", &["data/train-00000-of-00003.jsonl".to_owned()][..]));
    let (rows, fetched) = fake.rows(None, "train", 3).unwrap();
    assert_eq!((rows.lines().count(), fetched.len()), (3, 2));
    assert_eq!(fake.rows(None, "train", 9).unwrap().0.lines().count(), 4);
}

#[test]
fn a_column_that_a_file_lacks_is_null_and_one_that_it_has_beside_is_refused() {
    let fake = Fake::new(&[
        ("train_0.jsonl", "{\"a\":1,\"b\":2}\n{\"b\":3}\n"),
        ("train_1.jsonl", "{\"b\":5,\"a\":4}\n{\"a\":6,\"c\":7}\n"),
    ]);
    assert_eq!(fake.rows(None, "train", 3).unwrap().0, "{\"a\":1,\"b\":2}\n{\"a\":null,\"b\":3}\n{\"a\":4,\"b\":5}\n");
    let failure = fake.rows(None, "train", 4).unwrap_err();
    assert_eq!(failure.message, "train_1.jsonl: it has a column `c`, where train_0.jsonl has `a`, `b` and no other");
}

#[test]
fn declared_columns_decide() {
    let readme = "---\ndataset_info:\n  features:\n  - name: b\n    dtype: int64\n  - name: a\n    dtype: int64\n---\n";
    let fake = Fake::new(&[("README.md", readme), ("train.jsonl", "{\"a\":1}\n{\"a\":2,\"b\":3}\n{\"c\":1}\n")]);
    assert_eq!(fake.rows(None, "train", 2).unwrap().0, "{\"b\":null,\"a\":1}\n{\"b\":3,\"a\":2}\n");
    let failure = fake.rows(None, "train", 3).unwrap_err();
    assert_eq!(failure.message, "train.jsonl: it has a column `c`, where the README.md has `b`, `a` and no other");
}

#[test]
fn values_of_another_kind_than_declared_are_refused_and_whole_numbers_become_others() {
    let readme = |dtype: &str| format!("---\ndataset_info: {{features: [{{name: a, dtype: {dtype}}}]}}\n---\n");
    let rows = |dtype: &str, rows: &str| {
        let fake = Fake::new(&[("README.md", &readme(dtype)), ("train.jsonl", rows)]);
        fake.rows(None, "train", 9).map(|(rows, _)| rows).map_err(|failure| failure.message)
    };
    assert_eq!(rows("float64", "{\"a\":1}\n{\"a\":null}\n").unwrap(), "{\"a\":1.0}\n{\"a\":null}\n");
    let message = "train.jsonl: the column `a` is text, and integer in the README.md";
    assert_eq!(rows("{class_label: {names: {'0': x}}}", "{\"a\":\"x\"}\n").unwrap_err(), message);

    let fake = Fake::new(&[("train_0.jsonl", "{\"a\":1}\n"), ("README.md", &readme("string"))]);
    fake.write("main", "train_0.parquet", include_bytes!("../../../tests/rows/x.parquet"));
    fake.write("main", "train_1.parquet", include_bytes!("../../../tests/rows/x.parquet"));
    let failure = fake.rows(None, "train", 9).unwrap_err();
    assert_eq!(failure.message, "train_0.parquet: the column `a` is integer, and text in the README.md");
}

fn error(fake: &Fake, config: Option<&str>, split: &str) -> String {
    let error = fake.find(config, split).unwrap_err();
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}\n  hint: {hint}"))
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let readme = "---\nconfigs:\n- {config_name: main, data_files: a.jsonl}\n- {config_name: socratic, data_files: \
                  [{split: test, path: b*.jsonl}, {split: empty, path: c*.jsonl}, {split: gone, path: d.jsonl}]}\n\
                  - {config_name: other, data_files: e.csv, sep: \";\"}\n---\n";
    let files = [("README.md", readme), ("a.jsonl", ""), ("b.jsonl", ""), ("e.csv", "")];
    let fake = Fake::new(&files);
    let broken = Fake::new(&[("README.md", "---\nconfigs: [\n---\n")]);
    let all = [
        error(&fake, None, "train"),
        error(&fake, Some("socratik"), "train"),
        error(&fake, Some("socratic"), "tset"),
        error(&fake, Some("main"), "train[:10%]"),
        error(&fake, Some("socratic"), "empty"),
        error(&fake, Some("socratic"), "gone"),
        error(&fake, Some("other"), "train"),
        error(&broken, None, "train"),
        error(&Fake::new(&[("README.md", "# Nothing\n")]), None, "train"),
        error(&Fake::new(&[("a.png", ""), ("b.png", "")]), None, "train"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_a_program_makes_is_read_from_the_conversion_of_the_hub() {
    let fake = Fake::new(&[("sums.py", "raise"), ("data/train.csv", "a\n1\n")]);
    let unconverted = error(&fake, None, "train");
    let at = |commit: &str, path: &str| fake.write(commit, path, b"");
    for path in ["a/train/0001.parquet", "a/train/0000.parquet", "a/partial-test/0000.parquet", "b/train/0000.parquet"]
    {
        at(CONVERSION, path);
    }
    let found = fake.find(Some("a"), "train").unwrap();
    assert_eq!(found.choice.files, ["a/train/0000.parquet", "a/train/0001.parquet"]);
    assert_eq!((&*found.commit, found.choice.is_partial), (CONVERSION, false));
    assert!(matches!(found.converted, Some(NoChoice::Script { .. })));
    assert!(fake.find(Some("a"), "test").unwrap().choice.is_partial);
    let pinned = Query { revision: Some("v1"), config: Some("a"), split: "train" };
    let pinned = find(&fake, "main", pinned).unwrap_err().to_string();
    assert!(find(&fake, "main", Query { revision: Some("main"), config: Some("a"), split: "train" }).is_ok());
    let all = [unconverted, pinned, error(&fake, None, "train"), error(&fake, Some("c"), "train")];
    insta::assert_snapshot!([&all[..], &[error(&fake, Some("a"), "valid")]].concat().join("\n"));
}
