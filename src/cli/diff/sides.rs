//! Which two things the words of a command line name.

use std::fmt;
use std::path::{Path, PathBuf};

use super::CliError;

/// Sections whose names begin the names of stages.
const SECTIONS: [&str; 8] = ["models", "data", "commands", "grams", "fishers", "merges", "evals", "tables"];

/// The file that makes a folder one of results.
const RESULTS: &str = "results.csv";

/// One side.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Side {
    /// A stage, and the experiment file that it is of.
    Stage(String, PathBuf),
    /// A model directory.
    Directory(PathBuf),
    /// A file of figures.
    Results(PathBuf),
    /// An experiment file.
    Experiment(PathBuf),
}

/// Two sides that can be held against each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sides {
    /// Stages or directories.
    Models([Side; 2]),
    /// Results, of which one may be an experiment's.
    Results([Side; 2]),
    /// Experiment files.
    Experiments([PathBuf; 2]),
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage, file) => write!(formatter, "{stage} of {}", file.display()),
            Self::Directory(path) | Self::Results(path) | Self::Experiment(path) => {
                write!(formatter, "{}", path.display())
            }
        }
    }
}

impl Side {
    fn kind(&self) -> &'static str {
        match self {
            Self::Stage(..) => "a stage",
            Self::Directory(_) => "a model directory",
            Self::Results(_) => "results",
            Self::Experiment(_) => "an experiment",
        }
    }
}

/// What a word is by itself.
#[derive(Clone, Debug)]
enum Word {
    Stage(String),
    Side(Side),
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    File,
    Directory { has_results: bool },
    Nothing,
}

fn look(path: &Path) -> Found {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let is_model = ["config.json", "model.safetensors"].iter().any(|file| path.join(file).exists());
            Found::Directory { has_results: !is_model && path.join(RESULTS).is_file() }
        }
        Ok(_) => Found::File,
        Err(_) => Found::Nothing,
    }
}

fn usage(message: &str, hint: &str) -> CliError {
    CliError::Usage(format!("{message}\nhint: {hint}"))
}

const FORMS: &str = "name two stages and their file (`merges.a merges.b x.yaml`), two model directories, two results.csv or two \
                     experiment files; `mergelab diff --help` has more";

impl Word {
    fn of(word: &str, look: impl Fn(&Path) -> Found) -> Result<Self, CliError> {
        let path = PathBuf::from(word);
        if word.split_once('.').is_some_and(|(section, _)| SECTIONS.contains(&section)) {
            return Ok(Self::Stage(word.to_owned()));
        }
        let ends = |ending: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
        Ok(Self::Side(match look(&path) {
            Found::Directory { has_results: true } => Side::Results(path.join(RESULTS)),
            Found::Directory { .. } => Side::Directory(path),
            Found::File if ends("csv") => Side::Results(path),
            Found::File if ends("safetensors") || ends("bin") => {
                let hint = "a model is compared whole: name the directory that the file lies in";
                return Err(usage(&format!("{word} is one file of a model"), hint));
            }
            Found::File => Side::Experiment(path),
            Found::Nothing => {
                let hint =
                    "a stage begins with its section, as in merges.avg; paths are relative to the working directory";
                return Err(usage(&format!("there is no file and no directory {word}, and it is no stage"), hint));
            }
        }))
    }
}

impl Sides {
    /// Reads the words.
    ///
    /// # Errors
    /// When they name no two sides of one kind.
    pub(super) fn read(words: &[String]) -> Result<Self, CliError> {
        Self::of(words, look)
    }

    fn of(words: &[String], look: impl Fn(&Path) -> Found) -> Result<Self, CliError> {
        let words = words.iter().map(|word| Word::of(word, &look)).collect::<Result<Vec<_>, _>>()?;
        let of_file = |stage: &String, file: &PathBuf| Side::Stage(stage.clone(), file.clone());
        let [first, second] = match words.as_slice() {
            [Word::Stage(a), Word::Stage(b), Word::Side(Side::Experiment(file))] => {
                [of_file(a, file), of_file(b, file)]
            }
            [
                Word::Stage(a),
                Word::Side(Side::Experiment(of_a)),
                Word::Stage(b),
                Word::Side(Side::Experiment(of_b)),
            ] => [of_file(a, of_a), of_file(b, of_b)],
            [Word::Stage(stage), Word::Side(Side::Experiment(file)), Word::Side(other)] => {
                [of_file(stage, file), other.clone()]
            }
            [Word::Side(other), Word::Stage(stage), Word::Side(Side::Experiment(file))] => {
                [other.clone(), of_file(stage, file)]
            }
            [Word::Side(a), Word::Side(b)] => [a.clone(), b.clone()],
            [Word::Stage(stage), Word::Side(Side::Experiment(file))] => {
                return Err(usage(&format!("{stage} of {} is one side alone", file.display()), FORMS));
            }
            [Word::Side(side)] => return Err(usage(&format!("{side} is one side alone"), FORMS)),
            words => {
                let lone = words.iter().enumerate().find_map(|(at, word)| match (word, words.get(at + 1)) {
                    (Word::Stage(_), Some(Word::Side(Side::Experiment(_)) | Word::Stage(_))) => None,
                    (Word::Stage(stage), _) => Some(stage),
                    _ => None,
                });
                let message = match lone {
                    Some(stage) => format!("{stage}: of which experiment file?"),
                    None => "these are no two sides".to_owned(),
                };
                return Err(usage(&message, FORMS));
            }
        };
        Self::of_one_kind(first, second)
    }

    fn of_one_kind(first: Side, second: Side) -> Result<Self, CliError> {
        let is_model = |side: &Side| matches!(side, Side::Stage(..) | Side::Directory(_));
        match (first, second) {
            (Side::Experiment(a), Side::Experiment(b)) => Ok(Self::Experiments([a, b])),
            (a, b) if is_model(&a) && is_model(&b) => Ok(Self::Models([a, b])),
            (a, b) if !is_model(&a) && !is_model(&b) => Ok(Self::Results([a, b])),
            (a, b) => {
                let message =
                    format!("{a} is {}, and {b} is {}: two sides of one kind are compared", a.kind(), b.kind());
                let is_file = |side: &Side| matches!(side, Side::Experiment(_));
                let has_stage = matches!(a, Side::Stage(..)) || matches!(b, Side::Stage(..));
                let hint = if has_stage && (is_file(&a) || is_file(&b)) {
                    "name the stage of the other side too: `merges.a x.yaml merges.b y.yaml`"
                } else {
                    FORMS
                };
                Err(usage(&message, hint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &Path) -> Found {
        match path.to_str().unwrap() {
            "x.yaml" | "y.yaml" | "a.csv" | "B.CSV" | "m/model.safetensors" => Found::File,
            "m" | "./merges.m" => Found::Directory { has_results: false },
            "results/x" => Found::Directory { has_results: true },
            _ => Found::Nothing,
        }
    }

    fn of(words: &str) -> Result<Sides, String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        Sides::of(&words, found).map_err(|error| match error {
            CliError::Usage(message) => message,
            other => panic!("{other:?}"),
        })
    }

    fn stage(stage: &str, file: &str) -> Side {
        Side::Stage(stage.to_owned(), file.into())
    }

    #[test]
    fn stages_take_the_file_after_them_and_two_share_one() {
        let models = |a, b| Ok(Sides::Models([a, b]));
        let directory = || Side::Directory("m".into());
        assert_eq!(of("merges.a models.b x.yaml"), models(stage("merges.a", "x.yaml"), stage("models.b", "x.yaml")));
        assert_eq!(
            of("merges.a x.yaml merges.a y.yaml"),
            models(stage("merges.a", "x.yaml"), stage("merges.a", "y.yaml"))
        );
        assert_eq!(of("merges.a x.yaml m"), models(stage("merges.a", "x.yaml"), directory()));
        assert_eq!(of("m merges.a x.yaml"), models(directory(), stage("merges.a", "x.yaml")));
        assert_eq!(of("m ./merges.m"), models(directory(), Side::Directory("./merges.m".into())));
    }

    #[test]
    fn results_are_files_or_folders_of_them_and_an_experiment_beside_results_means_its_scores() {
        let file = |path: &str| Side::Results(path.into());
        assert_eq!(of("a.csv B.CSV"), Ok(Sides::Results([file("a.csv"), file("B.CSV")])));
        assert_eq!(of("results/x a.csv"), Ok(Sides::Results([file("results/x/results.csv"), file("a.csv")])));
        let experiment = Side::Experiment("x.yaml".into());
        assert_eq!(of("x.yaml a.csv"), Ok(Sides::Results([experiment, file("a.csv")])));
        assert_eq!(of("x.yaml y.yaml"), Ok(Sides::Experiments(["x.yaml".into(), "y.yaml".into()])));
    }

    #[test]
    fn whatever_is_no_two_sides_of_one_kind_is_refused_with_the_forms() {
        let said: Vec<String> = [
            "merges.a x.yaml",
            "x.yaml",
            "merges.a merges.b",
            "merges.a merges.b merges.c x.yaml",
            "x.yaml y.yaml a.csv",
            "merges.a x.yaml y.yaml",
            "m a.csv",
            "gone x.yaml",
            "m m/model.safetensors",
        ]
        .into_iter()
        .map(|words| format!("{words}\n  {}", of(words).unwrap_err().replace('\n', "\n  ")))
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
