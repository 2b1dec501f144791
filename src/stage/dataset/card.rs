//! What a data set's README says in its header: which files make up which configuration, and which columns there are.
//!
//! The header is YAML between two lines `---`; `.huggingface.yaml` beside the README says the same and wins.

use std::rc::Rc;

use super::pattern::SplitPatterns;
use crate::stage::rows::Form;
use crate::stage::yaml::{self, Yaml};

/// The configuration of a repository that declares none.
pub(super) const DEFAULT: &str = "default";

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) name: String,
    /// Directory in which its patterns start.
    pub(super) below: String,
    /// Its splits; `None` where they are told by names.
    pub(super) splits: Option<Vec<SplitPatterns>>,
    /// Whether it says that it is the one to take where none is named.
    pub(super) is_default: bool,
    /// What else it says, which may be about how files are read.
    pub(super) settings: Vec<(String, String)>,
}

/// A column, and the kind of its values where the header says one that is told apart here.
pub(super) type Declared = (String, Option<Form>);

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) configs: Vec<Config>,
    /// The columns that it declares, by configuration.
    columns: Vec<(String, Vec<Declared>)>,
}

impl Card {
    /// Reads a README and a `.huggingface.yaml`, as far as they are there.
    ///
    /// # Errors
    /// What is wrong with the header, in words.
    pub(super) fn read(readme: Option<&str>, yaml: Option<&str>) -> Result<Self, String> {
        let mut card = Self::default();
        for text in [readme.and_then(header).as_deref(), yaml].into_iter().flatten() {
            if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
                continue;
            }
            let header = yaml::parse(text).ok_or("it is not YAML")?;
            if let Some(configs) = header.get("configs").filter(|value| is_there(value)) {
                let Yaml::List(items) = configs else { return Err("`configs` is no list".to_owned()) };
                card.configs = items.iter().map(|item| config(item)).collect::<Result<_, _>>()?;
            }
            if let Some(info) = header.get("dataset_info").filter(|value| is_there(value)) {
                card.columns = info.items().into_iter().filter_map(columns).collect();
            }
        }
        Ok(card)
    }

    /// The columns that are declared for a configuration, in order.
    pub(super) fn columns(&self, config: &str) -> Option<&[Declared]> {
        self.columns.iter().find(|(name, _)| name == config).map(|(_, columns)| &**columns)
    }
}

/// The lines between the first, which is `---`, and the next that is.
fn header(readme: &str) -> Option<String> {
    let mut lines = readme.trim_start_matches('\u{feff}').lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut text = String::new();
    for line in lines {
        if line.trim_end() == "---" {
            return Some(text);
        }
        text.push_str(line);
        text.push('\n');
    }
    None
}

fn is_there(value: &Yaml) -> bool {
    !matches!(value, Yaml::Text(text) if ["", "~", "null", "Null", "NULL"].contains(&text.as_str()))
}

fn config(item: &Yaml) -> Result<Config, String> {
    let Yaml::Map(fields) = item else { return Err("a configuration is no mapping".to_owned()) };
    let text = |key: &str| item.get(key).and_then(Yaml::text);
    let name = text("config_name").ok_or("a configuration has no `config_name`")?.to_owned();
    let wrong = |what: &str| format!("configuration `{name}`: {what}");
    let splits = match item.get("data_files").filter(|value| is_there(value)) {
        Some(files) => Some(data_files(files).map_err(|what| wrong(&what))?),
        None => None,
    };
    let known = |key: &str| ["config_name", "data_files", "data_dir", "default"].contains(&key);
    let settings = fields.iter().filter(|(key, value)| !known(key) && is_there(value));
    Ok(Config {
        below: text("data_dir").filter(|dir| is_there(&Yaml::Text((*dir).to_owned()))).unwrap_or_default().to_owned(),
        splits,
        is_default: text("default").is_some_and(|text| text.eq_ignore_ascii_case("true")),
        settings: settings.map(|(key, value)| (key.clone(), said(value))).collect(),
        name,
    })
}

/// `path`, `[path]` or `[{ split, path }]`; without a split it is `train`.
fn data_files(files: &Yaml) -> Result<Vec<SplitPatterns>, String> {
    let Yaml::List(items) = files else {
        return Ok(vec![("train".to_owned(), paths(files)?)]);
    };
    if !items.iter().any(|item| matches!(**item, Yaml::Map(_))) {
        return Ok(vec![("train".to_owned(), paths(files)?)]);
    }
    let mut splits: Vec<SplitPatterns> = Vec::new();
    for item in items {
        let split = item.get("split").and_then(Yaml::text).ok_or("an entry of `data_files` has no `split`")?;
        let path = item.get("path").ok_or_else(|| format!("split `{split}` has no `path`"))?;
        if splits.iter().any(|(other, _)| other == split) {
            return Err(format!("split `{split}` stands twice"));
        }
        splits.push((split.to_owned(), paths(path)?));
    }
    Ok(splits)
}

fn paths(value: &Yaml) -> Result<Vec<String>, String> {
    let texts = value.texts();
    if texts.is_empty() || texts.len() != value.items().len() {
        return Err("`data_files` is a path, a list of paths, or a list of splits with their paths".to_owned());
    }
    Ok(texts.into_iter().map(ToOwned::to_owned).collect())
}

/// Name and columns of an entry of `dataset_info`.
fn columns(info: &Yaml) -> Option<(String, Vec<Declared>)> {
    let name = info.get("config_name").and_then(Yaml::text).unwrap_or(DEFAULT);
    let Some(Yaml::List(features)) = info.get("features") else { return None };
    let column = |feature: &Rc<Yaml>| {
        let name = feature.get("name").and_then(Yaml::text)?;
        Some((name.to_owned(), feature.get("dtype").and_then(form)))
    };
    Some((name.to_owned(), features.iter().map(column).collect::<Option<_>>()?))
}

/// The kind of values of a declared type. Labels of classes are stored as their numbers.
fn form(dtype: &Yaml) -> Option<Form> {
    let Some(word) = dtype.text() else { return dtype.get("class_label").map(|_| Form::Integer) };
    let bits = word.trim_start_matches(|letter: char| letter.is_ascii_lowercase() || letter == '_');
    match &word[..word.len() - bits.len()] {
        "string" | "large_string" => Some(Form::Text),
        "bool" => Some(Form::Boolean),
        "int" | "uint" => Some(Form::Integer),
        "float" => Some(Form::Number),
        "date" => Some(Form::Date),
        "timestamp" => Some(Form::Moment),
        _ => None,
    }
}

/// A value in a message.
fn said(value: &Yaml) -> String {
    match value {
        Yaml::Text(text) | Yaml::Function(text) => text.clone(),
        Yaml::List(_) => "a list".to_owned(),
        Yaml::Map(_) => "a mapping".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(header: &str) -> Result<Card, String> {
        Card::read(Some(&format!("---\n{header}---\n# Title\n---\n")), None)
    }

    fn splits(splits: &[(&str, &[&str])]) -> Vec<SplitPatterns> {
        let owned = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
        splits.iter().map(|(split, paths)| ((*split).to_owned(), owned(paths))).collect()
    }

    #[test]
    fn data_files_are_a_path_a_list_of_paths_or_splits_with_theirs() {
        let card = card(
            "configs:\n- config_name: a\n  data_files: x.csv\n- config_name: 2023\n  data_files: [x.csv, y/*]\n  \
             default: true\n- config_name: c\n  data_dir: c\n- config_name: d\n  sep: \";\"\n  data_files:\n  - split: \
             train\n    path: [p, q]\n  - {split: test, path: r}\n",
        );
        let configs = card.unwrap().configs;
        assert_eq!(configs.iter().map(|config| &*config.name).collect::<Vec<_>>(), ["a", "2023", "c", "d"]);
        assert_eq!(configs[0].splits, Some(splits(&[("train", &["x.csv"])])));
        assert_eq!(configs[1].splits, Some(splits(&[("train", &["x.csv", "y/*"])])));
        assert!(configs[1].is_default && !configs[0].is_default);
        assert_eq!((&*configs[2].below, &configs[2].splits), ("c", &None));
        assert_eq!(configs[3].splits, Some(splits(&[("train", &["p", "q"]), ("test", &["r"])])));
        assert_eq!(configs[3].settings, [("sep".to_owned(), ";".to_owned())]);
    }

    #[test]
    fn a_readme_without_a_header_says_nothing() {
        for text in ["", "# Title\n", "---\nconfigs: x\n", "\n---\nconfigs: x\n---\n"] {
            assert_eq!(Card::read(Some(text), None), Ok(Card::default()), "{text:?}");
        }
        assert_eq!(card("license: mit\n"), Ok(Card::default()));
    }

    #[test]
    fn the_file_beside_the_readme_wins() {
        let readme = "---\nconfigs:\n- {config_name: a, data_files: x}\n---\n";
        let card = Card::read(Some(readme), Some("configs:\n- {config_name: b, data_files: y}\n")).unwrap();
        assert_eq!(card.configs.iter().map(|config| &*config.name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn columns_are_declared_for_one_configuration_or_for_each() {
        let one = card("dataset_info:\n  features:\n  - {name: q, dtype: string}\n  - name: a\n").unwrap();
        let column = |name: &str, form| (name.to_owned(), form);
        assert_eq!(one.columns("default").unwrap(), [column("q", Some(Form::Text)), column("a", None)]);
        let each = card("dataset_info:\n- {config_name: x, features: [{name: q}]}\n- {config_name: y}\n").unwrap();
        assert_eq!((each.columns("x").unwrap(), each.columns("y")), (&[column("q", None)][..], None));
    }

    #[test]
    fn kinds_of_values_are_told_from_the_types_of_columns() {
        let form = |dtype: &str| {
            let card = card(&format!("dataset_info: {{features: [{{name: q, dtype: {dtype}}}]}}\n")).unwrap();
            card.columns("default").unwrap()[0].1.clone()
        };
        assert_eq!(["string", "large_string"].map(form), [Some(Form::Text), Some(Form::Text)]);
        assert_eq!(["int64", "uint8", "float32", "bool"].map(form), {
            [Some(Form::Integer), Some(Form::Integer), Some(Form::Number), Some(Form::Boolean)]
        });
        assert_eq!(["date32", "'timestamp[ms]'"].map(form), [Some(Form::Date), Some(Form::Moment)]);
        assert_eq!(
            ["{class_label: {names: {'0': a}}}", "image", "time64"].map(form),
            [Some(Form::Integer), None, None]
        );
    }

    #[test]
    fn a_header_that_cannot_be_followed_says_why() {
        let why = |header| card(header).unwrap_err();
        assert_eq!(why("configs: [\n"), "it is not YAML");
        assert_eq!(why("configs: main\n"), "`configs` is no list");
        assert_eq!(why("configs:\n- data_files: x\n"), "a configuration has no `config_name`");
        assert_eq!(why("configs:\n- {config_name: a, data_files: [{path: x}]}\n"), {
            "configuration `a`: an entry of `data_files` has no `split`"
        });
        assert_eq!(why("configs:\n- {config_name: a, data_files: [{split: s, path: x}, {split: s, path: y}]}\n"), {
            "configuration `a`: split `s` stands twice"
        });
    }
}
