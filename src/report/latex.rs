//! A grid as a LaTeX `tabular` in the style of `booktabs`.
//!
//! The text needs `\usepackage{booktabs}`, `\usepackage{hyperref}` where labels lead somewhere, and UTF-8, which LaTeX reads by
//! default. Letters of other scripts are left as
//! they are: they need an engine and a font that have them.

use super::grid::{Cell, Grid, aside, missing, quoted};

/// The table and its notes, to stand in a `table` environment of the reader's own; LF, ends with one.
pub fn latex(grid: &Grid) -> String {
    let mut text = format!("\\begin{{tabular}}{{l{}}}\n\\toprule\n", "r".repeat(grid.columns.len()));
    text += &line(grid.corner(), grid.columns.iter().map(|column| linked(&column.label, column.link.as_deref())));
    if grid.columns.iter().any(|column| column.note.is_some()) {
        text += &line("", grid.columns.iter().map(|column| small(column.note.as_deref())));
    }
    text += "\\midrule\n";
    for row in &grid.rows {
        let note = row.note.as_deref();
        let label = [linked(&row.label, row.link.as_deref()), small(note)].join(if note.is_some() { " " } else { "" });
        text += &line(&label, row.cells.iter().map(cell));
    }
    text += "\\bottomrule\n\\end{tabular}\n";
    for (mark, note) in grid.notes() {
        text.extend(["\\par{\\footnotesize ", &signs(&escape(&mark)), " ", &escape(&note), "\\par}\n"]);
    }
    text
}

/// A label that leads to a web address; of what may stand there, LaTeX takes three for its own.
fn linked(label: &str, link: Option<&str>) -> String {
    let label = escape(label);
    let address = |link: &str| link.replace('%', r"\%").replace('#', r"\#").replace('&', r"\&");
    link.map_or_else(|| label.clone(), |link| format!("\\href{{{}}}{{{label}}}", address(link)))
}

/// A note in small letters, or nothing.
fn small(note: Option<&str>) -> String {
    note.map(|note| format!("{{\\footnotesize {}}}", escape(note))).unwrap_or_default()
}

/// One line of the table. The empty group keeps a label that begins with `[` or `*` from being taken for an argument of
/// the `\\` before it.
fn line(label: &str, cells: impl Iterator<Item = String>) -> String {
    std::iter::once(format!("{{}}{label}")).chain(cells).collect::<Vec<_>>().join(" & ") + " \\\\\n"
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Measured { figure, best, second, beside, difference, .. } => {
            let value = escape(&figure.value);
            let value = if *best { format!("\\textbf{{{value}}}") } else { value };
            let value = if *second { format!("\\underline{{{value}}}") } else { value };
            let spread = figure.spread.as_ref().map_or_else(String::new, |spread| format!(" ± {spread}"));
            let arrow = cell.arrow().map_or_else(String::new, |arrow| signs(&format!(" {arrow}")));
            let aside = aside(beside.as_ref(), difference.as_deref());
            format!("{value}{}{arrow}{}", escape(&spread), escape(&aside))
        }
        Cell::Published(published) => escape(&quoted(published)),
        Cell::Compared(compared) => signs(&escape(&compared.to_string())),
        Cell::Missing(reason) => escape(&missing(*reason)),
        Cell::Blank => String::new(),
    }
}

/// Spells the signs of cells that are no letters of any font.
fn signs(text: &str) -> String {
    text.replace('↑', r"$\uparrow$").replace('↓', r"$\downarrow$").replace('≠', r"$\neq$")
}

/// Escapes LaTeX's own characters and spells the signs that the grid uses. A hyphen before a digit and after no word is a
/// minus sign; two of them never become a dash. The isolates around right-to-left text are dropped: no font has them.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match special(c) {
            Some(instead) => out.push_str(instead),
            None if c != '-' => out.push(c),
            None if !before.is_alphanumeric() && before != '-' && rest.peek().is_some_and(char::is_ascii_digit) => {
                out.push_str("$-$");
            }
            None if before == '-' => out.push_str("{}-"),
            None => out.push('-'),
        }
        before = c;
    }
    out
}

fn special(c: char) -> Option<&'static str> {
    Some(match c {
        '\\' => r"\textbackslash{}",
        '{' => r"\{",
        '}' => r"\}",
        '$' => r"\$",
        '&' => r"\&",
        '#' => r"\#",
        '%' => r"\%",
        '_' => r"\_",
        '^' => r"\textasciicircum{}",
        '~' => r"\textasciitilde{}",
        '<' => r"\textless{}",
        '>' => r"\textgreater{}",
        '|' => r"\textbar{}",
        '`' => r"\textasciigrave{}",
        '"' => "''",
        '±' => r"$\pm$",
        '†' => r"\textdagger{}",
        '‡' => r"\textdaggerdbl{}",
        '§' => r"\S{}",
        '¶' => r"\P{}",
        '—' => "---",
        '\u{2068}' | '\u{2069}' => "",
        _ => return None,
    })
}
