//! A grid as a table of GitHub-flavoured Markdown.

use super::grid::{Cell, Grid, aside, missing, quoted};
use super::text::{Piece, pieces, replace};

/// The table and its notes; LF, ends with one.
pub fn markdown(grid: &Grid) -> String {
    let heads = grid.columns.iter().map(|column| head(&column.label, column.note.as_deref(), column.link.as_deref()));
    let mut text = line(std::iter::once(grid.corner().to_owned()).chain(heads));
    text += &line(std::iter::once("---").chain(grid.columns.iter().map(|_| "---:")));
    for row in &grid.rows {
        text += &line(
            std::iter::once(head(&row.label, row.note.as_deref(), row.link.as_deref()))
                .chain(row.cells.iter().map(cell)),
        );
    }
    for (i, (mark, note)) in grid.notes().iter().enumerate() {
        text += if i == 0 { "\n" } else { "<br>\n" };
        text.extend([&escape(mark), " ", &remark(note)]);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn line(cells: impl Iterator<Item = impl AsRef<str>>) -> String {
    let mut line = String::new();
    for cell in cells {
        line.extend(["| ", cell.as_ref(), " "]);
    }
    line + "|\n"
}

/// What stands over a column or before a row.
fn head(label: &str, note: Option<&str>, link: Option<&str>) -> String {
    let label = escape(label);
    let label = link.map_or_else(|| label.clone(), |link| format!("[{label}](<{}>)", address(link)));
    label + &note.map(|note| format!("<br>{}", escape(note))).unwrap_or_default()
}

/// A web address between angle brackets, where nothing but `&` is special.
fn address(link: &str) -> String {
    link.replace('&', "&amp;")
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Measured { figure, best, second, beside, difference, .. } => {
            let value = if *best { format!("**{}**", figure.value) } else { figure.value.clone() };
            let value = if *second { format!("<u>{value}</u>") } else { value };
            let spread = figure.spread.as_ref().map_or_else(String::new, |spread| format!(" ± {spread}"));
            let arrow = cell.arrow().map_or_else(String::new, |arrow| format!(" {arrow}"));
            format!("{value}{spread}{arrow}{}", escape(&aside(beside.as_ref(), difference.as_deref())))
        }
        Cell::Published(published) => escape(&quoted(published)),
        Cell::Compared(compared) => escape(&compared.to_string()),
        Cell::Missing(reason) => escape(&missing(*reason)),
        Cell::Blank => String::new(),
    }
}

/// Words escaped, addresses as links.
fn remark(text: &str) -> String {
    let piece = |piece| match piece {
        Piece::Words(words) => escape(words),
        Piece::Link(link) => format!("<{}>", address(link)),
    };
    pieces(text).into_iter().map(piece).collect()
}

/// Escapes all that Markdown, its tables, its mathematics (`$`) and HTML take for their own. A line of a table or of
/// the notes begins with none of the text, so what is special only there (`#`, `-`, `1.`) stays as it is.
pub(super) fn escape(text: &str) -> String {
    replace(text, |c| {
        Some(match c {
            '\\' => r"\\",
            '`' => r"\`",
            '*' => r"\*",
            '_' => r"\_",
            '[' => r"\[",
            ']' => r"\]",
            '|' => r"\|",
            '~' => r"\~",
            '$' => r"\$",
            '<' => "&lt;",
            '>' => "&gt;",
            '&' => "&amp;",
            _ => return None,
        })
    })
}
