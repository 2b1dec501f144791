//! A grid as an HTML table: a fragment, and a page of such fragments that needs nothing else.

use super::grid::{Cell, Grid, aside, letter, quoted};
use super::text::{Piece, pieces, replace};

/// A page with the tables; it loads nothing, runs no script and follows the reader's light or dark setting.
pub(super) fn page(title: &str, grids: &[Grid]) -> String {
    let title = escape(title);
    let style = "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}\
                 table{border-collapse:collapse}caption{text-align:left;font-weight:bold;padding:.5rem 0}\
                 th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid}\
                 th:first-child{text-align:left}th small{display:block;font-weight:normal}";
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n"
    );
    text.extend(grids.iter().map(html));
    text + "</body>\n</html>\n"
}

/// The table and its notes as a fragment; LF, ends with one.
pub fn html(grid: &Grid) -> String {
    html_with(grid, &|_, _, inside| inside)
}

/// As [`html`], with what `wrap` makes of the inside of each cell, by row and column.
pub(crate) fn html_with(grid: &Grid, wrap: &dyn Fn(usize, usize, String) -> String) -> String {
    let mut text = format!(
        "<table>\n<caption>{}</caption>\n<thead>\n<tr><th scope=\"col\">{}</th>",
        escape(&grid.name),
        grid.corner()
    );
    for column in &grid.columns {
        text += &head("col", &column.label, column.note.as_deref(), column.link.as_deref());
    }
    text += "</tr>\n</thead>\n<tbody>\n";
    for (i, row) in grid.rows.iter().enumerate() {
        text.extend(["<tr>", &head("row", &row.label, row.note.as_deref(), row.link.as_deref())]);
        let cells = row.cells.iter().enumerate();
        text.extend(cells.map(|(j, cell)| format!("<td>{}</td>", wrap(i, j, inside(cell, grid)))));
        text += "</tr>\n";
    }
    text += "</tbody>\n</table>\n";
    text.extend(
        grid.notes().iter().map(|(mark, note)| format!("<p><small>{} {}</small></p>\n", escape(mark), remark(note))),
    );
    text
}

/// What stands over a column or before a row.
fn head(scope: &str, label: &str, note: Option<&str>, link: Option<&str>) -> String {
    let label = escape(label);
    let label = link.map_or_else(|| label.clone(), |link| anchor(link, &label));
    let note = note.map(|note| format!("<small>{}</small>", escape(note))).unwrap_or_default();
    format!("<th scope=\"{scope}\">{label}{note}</th>")
}

/// A link that tells the page behind it nothing.
fn anchor(link: &str, text: &str) -> String {
    format!("<a href=\"{}\" rel=\"noopener noreferrer\">{text}</a>", escape(link))
}

fn inside(cell: &Cell, grid: &Grid) -> String {
    match cell {
        Cell::Measured { figure, best, second, beside, difference, .. } => {
            let value = escape(&figure.value);
            let value = if *best { format!("<strong>{value}</strong>") } else { value };
            let value = if *second { format!("<u>{value}</u>") } else { value };
            let spread = figure.spread.as_ref().map_or_else(String::new, |spread| format!(" ± {spread}"));
            let arrow = cell.arrow().map_or_else(String::new, |arrow| format!(" {arrow}"));
            format!("{value}{spread}{arrow}{}", escape(&aside(beside.as_ref(), difference.as_deref())))
        }
        Cell::Published(published) => escape(&quoted(published)),
        Cell::Compared(compared) => escape(&compared.to_string()),
        Cell::Blank => String::new(),
        Cell::Missing(reason) => {
            format!("<span title=\"{}\">—</span> {}", escape(&grid.reasons[*reason]), escape(&letter(*reason)))
        }
    }
}

/// Words escaped, addresses as links.
fn remark(text: &str) -> String {
    let piece = |piece| match piece {
        Piece::Words(words) => escape(words),
        Piece::Link(address) => anchor(address, &escape(address)),
    };
    pieces(text).into_iter().map(piece).collect()
}

/// Escapes for text and for quoted attributes.
pub(super) fn escape(text: &str) -> String {
    replace(text, |c| {
        Some(match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&#39;",
            _ => return None,
        })
    })
}
