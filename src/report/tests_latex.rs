//! Whether LaTeX takes the tables. Needs `pdflatex` or `lualatex` with booktabs and hyperref, and says so where there is none.

use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::{Project, column, measured, published, with_stderr};
use super::*;
use crate::experiment::Column;

/// The engines that are installed.
fn engines() -> Vec<&'static str> {
    let is_there = |engine: &&str| {
        let version = Command::new(engine).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found: Vec<_> = ["pdflatex", "lualatex"].into_iter().filter(is_there).collect();
    if found.is_empty() {
        eprintln!("skipped: neither pdflatex nor lualatex is installed");
    }
    found
}

/// Sets a document with a preamble around a table; gives the log where that fails.
fn set(engine: &str, preamble: &str, table: &str, folder: &Path) -> Result<(), String> {
    let document = format!(
        "\\documentclass{{article}}\n\\usepackage[T1]{{fontenc}}\n\\usepackage{{booktabs}}\n{preamble}\\begin{{document}}\n\
         {table}\\end{{document}}\n"
    );
    std::fs::write(folder.join("table.tex"), document).unwrap();
    let mut command = Command::new(engine);
    command.args(["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]).current_dir(folder);
    // Fonts that have to be made first go here, and not into somebody's home.
    command.env("TEXMFVAR", folder).env("TEXMFCONFIG", folder).env("VARTEXFONTS", folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && folder.join("table.pdf").is_file() { Ok(()) } else { Err(log) }
}

/// Texts that mean something to LaTeX, or nothing to its fonts.
const NASTY: &[&str] = &[
    r"100% _ \ {} } { ~ ^ $ # & < > | ` ' \input{x} \undefined",
    "[1] *",
    "-- --- ?` !` << >> ,, ''",
    "α β γ → ≥ ≠ × · − ±",
    "שלום עולם",
    "مرحبا",
    "日本語 モデル 한국어",
    "Kraków, Łódź, ą, «q», Ħ, ſ, €",
    "e\u{301} \u{200b}\u{feff} 😀 \u{fffd}",
    "\u{0}\u{1b}\u{202e}",
    "",
];

fn nasty() -> Project {
    let models: Vec<String> = (0..=NASTY.len()).map(|i| format!("m{i}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let first = Column {
        label: Some(NASTY[0].to_owned()),
        note: Some(NASTY.concat()),
        unit: Some("%".to_owned()),
        link: Some("https://example.org/a_b~c?d=1&copy=2#e%20f*".to_owned()),
        ..column("t", "acc")
    };
    let second = Column { label: Some("שלום".to_owned()), ..column("u", "loss") };
    let mut project = Project::new(&models, vec![first, second])
        .measured([
            with_stderr(0.03, measured("m0", "t", "acc", "", 0.6)),
            with_stderr(0.03, measured("m1", "t", "acc", "", 0.9)),
            measured("m1", "u", "loss", "", -1.5),
        ])
        .published([published("m0", "t", "acc", 0.7, NASTY[0], &NASTY.concat())]);
    let table = &mut project.tables[0];
    table.comparison = true;
    table.second = true;
    let long = "long ".repeat(60);
    for (row, label) in table.rows.iter_mut().zip(NASTY.iter().copied().chain([long.as_str()])) {
        row.label = Some(label.to_owned());
    }
    table.rows[1].link = Some("https://example.org/100%25_~x".to_owned());
    project.absent.insert(("m3".to_owned(), "t".to_owned()), NASTY.concat());
    project
}

#[test]
fn latex_sets_tables_whatever_stands_in_them() {
    let mut turned = nasty();
    turned.tables[0].turned = true;
    let none = Project::new(&[], vec![column("t", "acc")]);
    let bare = Project::new(&["m"], vec![]);
    let tables: Vec<String> = [nasty(), turned, none, bare].iter().map(|project| latex(&project.grid())).collect();
    let tables = tables.join("\\clearpage\n");
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        for preamble in ["", "\\usepackage{hyperref}\n"] {
            if let Err(log) = set(engine, preamble, &tables, folder.path()) {
                panic!("{engine}:\n{tables}\n{log}");
            }
        }
    }
}

#[test]
fn what_latex_would_not_take_is_noticed() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        assert!(set(engine, "", "100% of \\undefined", folder.path()).is_err(), "{engine}");
    }
}

#[test]
fn letters_of_other_scripts_stand_beside_their_code_points() {
    assert_eq!(latex::escape("日本 α ą"), r"\mergelabscript{日本}{U+65E5 U+672C} $\alpha$ ą");
    assert_eq!(latex::escape("\u{2068}שלום 1\u{2069}"), r"\mergelabscript{שלום}{U+05E9 U+05DC U+05D5 U+05DD} 1");
    let plain = Project::new(&["m"], vec![column("t", "acc")]).grid();
    assert!(!latex(&plain).contains("providecommand"), "{}", latex(&plain));
}
