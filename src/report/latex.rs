//! A grid as a LaTeX `tabular` in the style of `booktabs`.
//!
//! The text needs `\usepackage{booktabs}`, `\usepackage[T1]{fontenc}` for letters such as ą and «, and UTF-8, which LaTeX reads by
//! default; with `\usepackage{hyperref}` labels lead to their addresses, without it they are plain. Greek letters and
//! signs are spelled. Letters of other scripts stand as they are for `LuaLaTeX` and `XeLaTeX`, which need a font that has them;
//! pdfLaTeX knows none of them, and shows their code points ([`SCRIPT`]).

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
        text.extend(["\\par{\\footnotesize ", &escape(&mark), " ", &escape(&note), "\\par}\n"]);
    }
    let needed = [("\\href{", LINK), ("\\mergelabscript{", SCRIPT)];
    needed.into_iter().filter(|(used, _)| text.contains(used)).map(|(_, definition)| definition).collect::<String>()
        + &text
}

/// A label whose link nothing makes one.
const LINK: &str = "\\providecommand{\\href}[2]{#2}\n";

/// Letters that engines of Unicode set, and for others their code points.
const SCRIPT: &str = "\\providecommand{\\mergelabscript}[2]{\\ifdefined\\Umathchar#1\\else#2\\fi}\n";

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
            let arrow = cell.arrow().map_or_else(String::new, |arrow| escape(&format!(" {arrow}")));
            let aside = aside(beside.as_ref(), difference.as_deref());
            format!("{value}{}{arrow}{}", escape(&spread), escape(&aside))
        }
        Cell::Published(published) => escape(&quoted(published)),
        Cell::Compared(compared) => escape(&compared.to_string()),
        Cell::Missing(reason) => escape(&missing(*reason)),
        Cell::Blank => String::new(),
    }
}

/// Escapes LaTeX's own characters, spells signs, and puts letters of other scripts where only engines that know them look. A
/// hyphen before a digit and after no word is a minus sign; two of them never become a dash. The isolates around right-to-left
/// text are dropped: no font has them.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match special(c) {
            Some(instead) => out.push_str(instead),
            None if c != '-' && is_known(c) => out.push(c),
            None if c != '-' => {
                let mut run = String::from(c);
                while let Some(next) = rest.next_if(|next| special(*next).is_none() && !is_known(*next)) {
                    run.push(next);
                }
                let points: Vec<String> = run.chars().map(|c| format!("U+{:04X}", u32::from(c))).collect();
                out += &format!("\\mergelabscript{{{run}}}{{{}}}", points.join(" "));
            }
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

/// Whether pdfLaTeX with the encoding T1 sets a character: ASCII, the letters of Latin-1 and Latin Extended-A but for a few,
/// and common punctuation. Seen by setting each.
fn is_known(c: char) -> bool {
    match c {
        'Ħ' | 'ħ' | 'ĸ' | 'Ŀ' | 'ŀ' | 'ŉ' | 'Ŧ' | 'ŧ' | 'ſ' => false,
        ' '..='~' | '\u{a0}'..='\u{17e}' | 'Ș'..='ț' | '\u{2010}'..='\u{2016}' => true,
        _ => "‘’‚“”„•…‰‱‹›※€™".contains(c),
    }
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
        '−' => "$-$",
        '×' => r"$\times$",
        '·' => r"$\cdot$",
        char::REPLACEMENT_CHARACTER => r"\textbf{?}",
        '↑' => r"$\uparrow$",
        '↓' => r"$\downarrow$",
        '→' => r"$\rightarrow$",
        '←' => r"$\leftarrow$",
        '≠' => r"$\neq$",
        '≤' => r"$\leq$",
        '≥' => r"$\geq$",
        '≈' => r"$\approx$",
        '∞' => r"$\infty$",
        '√' => r"$\surd$",
        '∑' => r"$\sum$",
        '∂' => r"$\partial$",
        '∈' => r"$\in$",
        '∼' => r"$\sim$",
        '⊕' => r"$\oplus$",
        '⊗' => r"$\otimes$",
        'α' => r"$\alpha$",
        'β' => r"$\beta$",
        'γ' => r"$\gamma$",
        'δ' => r"$\delta$",
        'ε' => r"$\varepsilon$",
        'ζ' => r"$\zeta$",
        'η' => r"$\eta$",
        'θ' => r"$\theta$",
        'ι' => r"$\iota$",
        'κ' => r"$\kappa$",
        'λ' => r"$\lambda$",
        'μ' => r"$\mu$",
        'ν' => r"$\nu$",
        'ξ' => r"$\xi$",
        'π' => r"$\pi$",
        'ρ' => r"$\rho$",
        'ς' => r"$\varsigma$",
        'σ' => r"$\sigma$",
        'τ' => r"$\tau$",
        'υ' => r"$\upsilon$",
        'φ' => r"$\varphi$",
        'χ' => r"$\chi$",
        'ψ' => r"$\psi$",
        'ω' => r"$\omega$",
        'Γ' => r"$\Gamma$",
        'Δ' => r"$\Delta$",
        'Θ' => r"$\Theta$",
        'Λ' => r"$\Lambda$",
        'Ξ' => r"$\Xi$",
        'Π' => r"$\Pi$",
        'Σ' => r"$\Sigma$",
        'Υ' => r"$\Upsilon$",
        'Φ' => r"$\Phi$",
        'Ψ' => r"$\Psi$",
        'Ω' => r"$\Omega$",
        '\u{2068}' | '\u{2069}' => "",
        _ => return None,
    })
}
