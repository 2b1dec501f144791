//! The files that make up a split of a configuration, by the rules of the `datasets` library.

use super::card::{Card, Config, DEFAULT, Declared};
use super::format::{self, Format};
use super::pattern::{self, SplitPatterns};
use crate::experiment::did_you_mean;

/// Settings of a configuration that change what is read from a file. Others are for whatever shows a data set.
const READING: [&str; 38] = [
    "sep",
    "delimiter",
    "header",
    "names",
    "column_names",
    "index_col",
    "usecols",
    "prefix",
    "mangle_dupe_cols",
    "converters",
    "true_values",
    "false_values",
    "skipinitialspace",
    "skiprows",
    "nrows",
    "na_values",
    "keep_default_na",
    "na_filter",
    "skip_blank_lines",
    "thousands",
    "decimal",
    "lineterminator",
    "quotechar",
    "quoting",
    "escapechar",
    "comment",
    "encoding",
    "dialect",
    "skipfooter",
    "doublequote",
    "encoding_errors",
    "on_bad_lines",
    "on_bad_files",
    "date_format",
    "features",
    "field",
    "columns",
    "filters",
];

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) config: Option<&'a str>,
    pub(super) split: &'a str,
}

/// The files that hold the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Name of the configuration.
    pub(crate) config: String,
    /// How they are written.
    pub(crate) format: Format,
    /// Paths in the repository, in the order of the rows.
    pub(crate) files: Vec<String>,
    /// The columns that the repository declares, in order.
    pub(super) columns: Option<Vec<Declared>>,
    /// Whether they hold only the beginning of the split.
    pub(crate) is_partial: bool,
}

/// Why there are no files to be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoChoice {
    /// It is made by a program.
    #[error("its rows are made by a program, {script}, which is not run")]
    Script {
        /// The program's file.
        script: String,
    },
    /// Nothing in it is data.
    #[error("there are no files of data in it")]
    NoData,
    /// It is data of another kind.
    #[error("its files, such as {path}, are not read")]
    Unread {
        /// One of them.
        path: String,
    },
    /// Its header cannot be followed.
    #[error("the header of its README.md cannot be followed: {0}")]
    Header(String),
    /// It has several configurations.
    #[error("it has several configurations, and none is named")]
    SeveralConfigs(Vec<String>),
    /// Several configurations say that they are the one.
    #[error("two of its configurations, `{0}` and `{1}`, say that they are the default, and none is named")]
    SeveralDefaults(String, String),
    /// No such configuration.
    #[error("it has no configuration `{config}`")]
    NoConfig {
        /// As asked for.
        config: String,
        /// Those that it has.
        configs: Vec<String>,
    },
    /// No such split.
    #[error("it has no split `{split}` in its configuration `{config}`")]
    NoSplit {
        /// The configuration.
        config: String,
        /// As asked for.
        split: String,
        /// Those that it has.
        splits: Vec<String>,
    },
    /// A split without files.
    #[error("the split `{split}` of its configuration `{config}` has no files")]
    Empty {
        /// The configuration.
        config: String,
        /// The split.
        split: String,
    },
    /// A pattern that finds nothing or cannot be followed.
    #[error("its configuration `{config}` names the files `{pattern}`: {why}")]
    Pattern {
        /// The configuration.
        config: String,
        /// As the header spells it.
        pattern: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A setting that is not honoured.
    #[error("its configuration `{config}` sets `{setting}: {value}`, which is not honoured here")]
    Setting {
        /// The configuration.
        config: String,
        /// Its key.
        setting: String,
        /// Its value.
        value: String,
    },
}

impl NoChoice {
    /// Whether the hub's own conversion to Parquet may have what the repository's files have not.
    pub(crate) fn may_be_converted(&self) -> bool {
        matches!(self, Self::Script { .. } | Self::NoData | Self::Unread { .. } | Self::Setting { .. })
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::SeveralConfigs(configs) => Some(format!("add `config:`, one of {}", listed(configs))),
            Self::SeveralDefaults(..) => Some("name one in `config:`".to_owned()),
            Self::NoConfig { config, configs } => Some(among(config, configs)),
            Self::NoSplit { split, .. } if split.contains(['[', '+', '%']) => {
                Some("a part of a split is picked by `rows:`: the first N, or a sample".to_owned())
            }
            Self::NoSplit { split, splits, .. } => Some(among(split, splits)),
            Self::Unread { .. } | Self::Setting { .. } => Some(
                "rows are read from .parquet, and from .jsonl, .json and .csv, also with .gz or .zst behind them"
                    .to_owned(),
            ),
            Self::Script { .. } | Self::NoData | Self::Header(_) | Self::Empty { .. } | Self::Pattern { .. } => None,
        }
    }
}

/// The names that there are, with the one that may have been meant.
fn among(wanted: &str, names: &[String]) -> String {
    let there = format!("it has {}", listed(names));
    let meant = did_you_mean(wanted, names.iter().map(String::as_str));
    meant.map_or(there.clone(), |meant| format!("{meant} {there}"))
}

/// At most twenty names, for a sentence.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(MOST);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

/// The files of what is wanted in a repository that is called `name` (without its owner) and has files at these paths.
///
/// # Errors
/// Why there are none.
pub(super) fn choose(paths: &[&str], name: &str, card: &Card, wanted: Wanted<'_>) -> Result<Choice, NoChoice> {
    let script = format!("{name}.py");
    if paths.contains(&&*script) {
        return Err(NoChoice::Script { script });
    }
    let undeclared =
        Config { name: DEFAULT.to_owned(), below: String::new(), splits: None, is_default: true, settings: Vec::new() };
    let is_declared = !card.configs.is_empty();
    let configs = if is_declared { &*card.configs } else { std::slice::from_ref(&undeclared) };
    let config = config(configs, wanted.config)?;
    let splits = match &config.splits {
        Some(splits) => splits.clone(),
        None => pattern::defaults(paths, &config.below).ok_or(NoChoice::NoData)?,
    };
    let Some((_, patterns)) = splits.iter().find(|(split, _)| split == wanted.split) else {
        return Err(no_split(&config.name, wanted.split, names(&splits)));
    };
    let mut files = pattern::files(paths, &config.below, patterns).map_err(|(pattern, why)| NoChoice::Pattern {
        config: config.name.clone(),
        pattern,
        why: why.0,
    })?;
    if files.is_empty() {
        return Err(match config.splits {
            Some(_) => NoChoice::Empty { config: config.name.clone(), split: wanted.split.to_owned() },
            None => NoChoice::NoData,
        });
    }
    let unread = |path: &str| NoChoice::Unread { path: path.to_owned() };
    let format = format::of_most(&files).map_err(|_| unread(files[0]))?;
    if !is_declared {
        files.retain(|path| format.takes(path));
    }
    if let Some(path) = files.iter().find(|path| !format.reads(path)) {
        return Err(unread(path));
    }
    let is_plain = |value: &str| matches!(value.to_lowercase().as_str(), "utf-8" | "utf8" | ",");
    if let Some((setting, value)) =
        config.settings.iter().find(|(key, value)| READING.contains(&&**key) && !is_plain(value))
    {
        let (setting, value) = (setting.clone(), value.clone());
        return Err(NoChoice::Setting { config: config.name.clone(), setting, value });
    }
    Ok(Choice {
        format,
        files: files.into_iter().map(ToOwned::to_owned).collect(),
        columns: card.columns(&config.name).map(ToOwned::to_owned),
        config: config.name.clone(),
        is_partial: false,
    })
}

/// The configuration that is named; where none is, the only one, the one called `default`, or the one that says so.
fn config<'a>(configs: &'a [Config], wanted: Option<&str>) -> Result<&'a Config, NoChoice> {
    let names = || configs.iter().map(|config| config.name.clone()).collect();
    if let Some(wanted) = wanted {
        let found = configs.iter().rfind(|config| config.name == wanted);
        return found.ok_or_else(|| NoChoice::NoConfig { config: wanted.to_owned(), configs: names() });
    }
    if let [only] = configs {
        return Ok(only);
    }
    let mut defaults = configs.iter().filter(|config| config.is_default || config.name == DEFAULT);
    match (defaults.next(), defaults.next()) {
        (Some(one), Some(other)) => Err(NoChoice::SeveralDefaults(one.name.clone(), other.name.clone())),
        (Some(one), None) => Ok(one),
        (None, _) => Err(NoChoice::SeveralConfigs(names())),
    }
}

fn names(splits: &[SplitPatterns]) -> Vec<String> {
    splits.iter().map(|(split, _)| split.clone()).collect()
}

fn no_split(config: &str, split: &str, splits: Vec<String>) -> NoChoice {
    NoChoice::NoSplit { config: config.to_owned(), split: split.to_owned(), splits }
}

/// The same from the paths of the hub's own conversion: `CONFIG/SPLIT/0000.parquet`, or `CONFIG/partial-SPLIT/0000.parquet`
/// where only the beginning was converted.
///
/// # Errors
/// Why there are none.
pub(super) fn choose_converted(paths: &[&str], wanted: Wanted<'_>) -> Result<Choice, NoChoice> {
    const PARTIAL: &str = "partial-";
    let parts = |path: &&str| {
        let (directory, file) = path.rsplit_once('/')?;
        let (config, split) = directory.split_once('/')?;
        let is_part = !split.contains('/') && file.ends_with(".parquet");
        is_part.then(|| (config.to_owned(), split.to_owned(), (*path).to_owned()))
    };
    let mut files: Vec<(String, String, String)> = paths.iter().filter_map(parts).collect();
    files.sort_unstable();
    let mut configs: Vec<String> = files.iter().map(|(config, ..)| config.clone()).collect();
    configs.dedup();
    let config = match wanted.config {
        Some(wanted) if configs.iter().any(|config| config == wanted) => wanted.to_owned(),
        Some(wanted) => return Err(NoChoice::NoConfig { config: wanted.to_owned(), configs }),
        None => match &*configs {
            [] => return Err(NoChoice::NoData),
            [only] => only.clone(),
            _ if configs.iter().any(|config| config == DEFAULT) => DEFAULT.to_owned(),
            _ => return Err(NoChoice::SeveralConfigs(configs)),
        },
    };
    files.retain(|(of, ..)| *of == config);
    let whole = |split: &str| split.strip_prefix(PARTIAL).unwrap_or(split) == wanted.split;
    let Some((_, found, _)) = files.iter().find(|(_, split, _)| whole(split)).cloned() else {
        let mut splits: Vec<String> =
            files.iter().map(|(_, split, _)| split.strip_prefix(PARTIAL).unwrap_or(split).to_owned()).collect();
        splits.dedup();
        return Err(no_split(&config, wanted.split, splits));
    };
    Ok(Choice {
        config,
        format: Format::Parquet,
        files: files.into_iter().filter(|(_, split, _)| *split == found).map(|(.., path)| path).collect(),
        columns: None,
        is_partial: found.starts_with(PARTIAL),
    })
}
