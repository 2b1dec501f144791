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
    let mut text =
        format!("<table>\n<caption>{}</caption>\n<thead>\n<tr><th scope=\"col\">Model</th>", escape(&grid.name));
    for column in &grid.columns {
        let note = column.note.as_ref().map_or_else(String::new, |note| format!("<small>{}</small>", escape(note)));
        text.extend(["<th scope=\"col\">", &escape(&column.label), &note, "</th>"]);
    }
    text += "</tr>\n</thead>\n<tbody>\n";
    for (i, row) in grid.rows.iter().enumerate() {
        text.extend(["<tr><th scope=\"row\">", &escape(&row.label), "</th>"]);
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

fn inside(cell: &Cell, grid: &Grid) -> String {
    match cell {
        Cell::Measured { figure, best, second, beside, difference, .. } => {
            let value = escape(&figure.value);
            let value = if *best { format!("<strong>{value}</strong>") } else { value };
            let value = if *second { format!("<u>{value}</u>") } else { value };
            let stderr = figure.stderr.as_ref().map_or_else(String::new, |stderr| format!(" ± {stderr}"));
            let arrow = cell.arrow().map_or_else(String::new, |arrow| format!(" {arrow}"));
            format!("{value}{stderr}{arrow}{}", escape(&aside(beside.as_ref(), difference.as_deref())))
        }
        Cell::Published(published) => escape(&quoted(published)),
        Cell::Missing(reason) => {
            format!("<span title=\"{}\">—</span> {}", escape(&grid.reasons[*reason]), escape(&letter(*reason)))
        }
    }
}

/// Words escaped, addresses as links.
fn remark(text: &str) -> String {
    let piece = |piece| match piece {
        Piece::Words(words) => escape(words),
        Piece::Link(address) => format!("<a href=\"{0}\" rel=\"noopener noreferrer\">{0}</a>", escape(address)),
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
