//! The page around the data: what can be read without script, and the scripts.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};

use super::Inputs;
use super::differences::differences;
use super::policy::{inert, policy};
use super::provenance::Provenance;
use super::stages::Stages;
use super::tables::Shown;
use crate::report::plain;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("browser/style.css");

/// The library that draws charts; `assets/charts/README.md` says what it is made of.
const CHARTS: &str = include_str!("../../assets/charts/charts.min.js");
const LICENSES: &str = include_str!("../../assets/charts/LICENSES.txt");

/// The scripts of a page, in the order in which they run; all in one function.
const SCRIPTS: [&str; 9] = [
    include_str!("browser/elements.js"),
    include_str!("browser/drawings.js"),
    include_str!("browser/origins.js"),
    include_str!("browser/tables.js"),
    include_str!("browser/bars.js"),
    include_str!("browser/sweeps.js"),
    include_str!("browser/layers.js"),
    include_str!("browser/stages.js"),
    include_str!("browser/start.js"),
];

/// The page, with the data that its scripts draw.
pub(super) fn page(inputs: &Inputs<'_>, stages: &Stages, tables: &[Shown], has_layers: bool, json: &str) -> String {
    let script = format!("(() => {{\n\"use strict\";\n{}}})();\n", SCRIPTS.join("\n"));
    let made: Vec<_> = stages.list.iter().filter_map(|stage| stage.made.as_ref()).collect();
    let lines: Vec<_> = stages
        .list
        .iter()
        .map(|stage| {
            let made = stage.made.as_ref();
            context! {
                name => plain(&stage.name),
                state => stage.state,
                words => words(stage.state),
                key => stage.key.as_deref(),
                seconds => made.and_then(|made| made.seconds),
                took => made.and_then(|made| made.seconds).map(duration),
                ended => made.map(|made| made.ended.as_str()),
                day => made.map(|made| moment(&made.ended)),
                host => made.map(|made| plain(&made.host)),
            }
        })
        .collect();
    let experiment = &inputs.loaded.experiment;
    let evaluations = inputs.graph.iter().filter(|(_, stage)| stage.experiment == inputs.experiment);
    let shown = context! {
        policy => policy(&[CHARTS, &script], STYLE),
        style => safe(STYLE),
        charts => safe(CHARTS),
        script => safe(&script),
        data => safe(&inert(json)),
        licenses => LICENSES,
        version => env!("CARGO_PKG_VERSION"),
        title => plain(&experiment.name),
        description => experiment.description.as_deref().map(plain),
        file => inputs.relative(&experiment.file.display().to_string()),
        text => inputs.loaded.text(),
        is_empty => made.is_empty(),
        up_to_date => stages.up_to_date(),
        total => stages.list.len(),
        merges => experiment.merges.len(),
        evaluations => evaluations.filter(|(_, stage)| stage.spec.evaluated().is_some()).count(),
        took => (!made.is_empty()).then(|| duration(made.iter().filter_map(|made| made.seconds).sum())),
        last => made.iter().map(|made| made.ended.as_str()).max().map(moment),
        tables => tables.iter().map(|table| context! {
            name => plain(&table.name),
            html => safe(&table.html),
            sweeps => table.sweeps.iter().map(|sweep| plain(&sweep.key)).collect::<Vec<_>>(),
        }).collect::<Vec<_>>(),
        has_layers,
        differences => Value::from(Serde(differences(inputs))),
        stages => lines,
        provenance => Value::from(Serde(Provenance::of(inputs, stages))),
    };
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut environment = Environment::new();
    environment.set_syntax(syntax.expect("the syntax is the usual one"));
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.render_str(PAGE, shown).expect("the template fits what it is given")
}

fn safe(text: &str) -> Value {
    Value::from_safe_string(text.to_owned())
}

fn words(state: &str) -> &'static str {
    match state {
        "up-to-date" => "up to date",
        "run" => "would run",
        _ => "waits",
    }
}

/// `2026-01-31 12:00` of an RFC 3339 time, which is in UTC.
fn moment(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

/// Seconds in the unit that suits them.
fn duration(seconds: f64) -> String {
    match seconds {
        ..59.95 => format!("{seconds:.1} s"),
        ..5_970.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(
            [0.04, 59.9, 60.0, 90.0, 5_400.0, 7_200.0].map(duration),
            ["0.0 s", "59.9 s", "1.0 min", "1.5 min", "90.0 min", "2.0 h"]
        );
        assert_eq!(moment("2026-01-31T12:00:59.123Z"), "2026-01-31 12:00");
        assert_eq!(moment("then"), "then");
    }

    #[test]
    fn the_library_of_charts_is_the_one_that_is_written_down() {
        let readme = include_str!("../../assets/charts/README.md");
        let digest = crate::digest::Digest::of(CHARTS.as_bytes()).to_string();
        assert!(readme.contains(&format!("SHA-256 {digest}\n")), "{digest}");
    }

    #[test]
    fn no_script_ends_its_own_element() {
        for script in SCRIPTS.iter().chain([&CHARTS]) {
            let lower = script.to_lowercase();
            assert!(!lower.contains("</script") && !lower.contains("<!--"));
        }
        assert!(!STYLE.to_lowercase().contains("</style"));
    }
}
