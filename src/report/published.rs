//! `published.csv`: figures that others published, each with its source.
//!
//! The header is [`COLUMNS`], in any order. Values are on the metric's own scale (0.704, not 70.4). `filter`, `n_shot`,
//! `stderr`, `n_samples` and `note` may be empty; an empty filter is "not stated" and stands beside any. Every line
//! needs a `citation`.

use std::collections::HashMap;
use std::path::Path;

use super::Errors;
use super::columns::{self, CsvError, CsvProblem};
use super::measurement::{Measurement, Source};

/// The columns of `published.csv`.
pub const COLUMNS: [&str; 10] =
    ["model", "task", "metric", "filter", "n_shot", "value", "stderr", "n_samples", "citation", "note"];

/// Reads the text of a `published.csv`; `file` is for the errors. Spaces around fields do not count.
///
/// # Errors
/// Everything that is wrong, with line and column: missing, unknown or doubled columns; wrong numbers; a missing
/// citation or name; two lines with one model, task, metric and filter (also with other shots: a cell has one figure).
pub fn from_csv(text: &str, file: &Path) -> Result<Vec<Measurement>, Errors<CsvError>> {
    let mut seen = HashMap::new();
    columns::read(text, file, &COLUMNS, |fields| {
        fields.trim();
        // Every field is read before any `?`, so that one pass finds all that is wrong.
        let (model, task, metric) = (fields.text("model"), fields.text("task"), fields.text("metric"));
        let (n_shot, value, stderr) = (fields.count("n_shot"), fields.number("value"), fields.stderr("stderr"));
        let (n_samples, citation) = (fields.count("n_samples"), fields.text("citation"));
        let (model, task, metric, filter) = (model?, task?, metric?, fields.optional("filter"));
        let line = fields.line;
        let first = *seen.entry((model.clone(), task.clone(), metric.clone(), filter.clone())).or_insert(line);
        if first != line {
            fields.refuse(None, CsvProblem::Duplicate(first));
        }
        Ok(Measurement {
            model,
            task,
            metric,
            filter,
            n_shot: n_shot?,
            value: value?,
            stderr: stderr?,
            n_samples: n_samples?,
            higher_is_better: None,
            source: Source::Published,
            key: None,
            citation: Some(citation?),
            note: fields.optional("note"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Measurement>, Errors<CsvError>> {
        from_csv(text, Path::new("results/x/published.csv"))
    }

    #[test]
    fn a_line_becomes_a_published_figure() {
        let text = "\u{feff}model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\r\n\r\n\
                    math, gsm8k ,exact_match,,5,0.704,,,\"Yue et al., 2024\",official\r\n";
        let figures = parse(text).unwrap();
        assert_eq!(figures.len(), 1);
        assert_eq!((figures[0].task.as_str(), figures[0].value, figures[0].n_shot), ("gsm8k", 0.704, Some(5)));
        assert_eq!((figures[0].filter.as_deref(), figures[0].source), (None, Source::Published));
        assert_eq!(figures[0].citation.as_deref(), Some("Yue et al., 2024"));
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let text =
            "note,citation,n_samples,stderr,value,n_shot,filter,metric,task,model\n,A 2024,,0.01,0.5,,strict,acc,t,m\n";
        let figures = parse(text).unwrap();
        assert_eq!(
            (figures[0].model.as_str(), figures[0].filter.as_deref(), figures[0].stderr),
            ("m", Some("strict"), Some(0.01))
        );
    }

    #[test]
    fn everything_wrong_is_reported_at_once_with_file_line_and_column() {
        let text = "model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\n\
                    math,gsm8k,acc,,5,0.7,,,A,\n\
                    math,gsm8k,acc,,0,0.6,,,A,\n\
                    \n\
                    code,gsm8k,acc,,five,70%,-1,2.5,,\n\
                    ,gsm8k,acc,,,NaN,inf,,A,\n\
                    avg,gsm8k,acc,,,0.5,,,A, B, 2024,\n";
        insta::assert_snapshot!(parse(text).unwrap_err().to_string());
    }

    #[test]
    fn a_wrong_header_is_reported_whole() {
        let text = "model,task,metric,filter,n_shot,value,value,stder,citation\n";
        insta::assert_snapshot!(parse(text).unwrap_err().to_string());
        insta::assert_snapshot!(parse("").unwrap_err().to_string(), @"results/x/published.csv:1: the file is empty; its first line must be `model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note`");
    }
}
