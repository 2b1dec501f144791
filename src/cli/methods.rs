//! `mergelab methods`.

use mergelab_wire::exit;
use serde_json::json;

use super::{CliError, output};
use crate::methods;
use crate::report::nearest::nearest;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Method whose page is printed; without one, all are listed
    method: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists the merge methods, or prints the page of one.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let Some(name) = &arguments.method else {
        if arguments.json {
            let list: Vec<_> =
                methods::list().iter().map(|(name, summary)| json!({ "method": name, "summary": summary })).collect();
            output::print_json(&list);
        } else {
            let width = methods::names().map(str::len).max().unwrap_or(0);
            let lines = methods::list().into_iter().map(|(name, summary)| format!("{name:width$}  {summary}\n"));
            output::print(&lines.collect::<String>());
        }
        return Ok(exit::DONE);
    };
    let page = methods::page(name).ok_or_else(|| unknown(name))?;
    if arguments.json {
        output::print_json(&json!({ "method": name, "page": page }));
    } else {
        output::print(&page);
    }
    Ok(exit::DONE)
}

fn unknown(name: &str) -> CliError {
    let known: Vec<String> = methods::names().map(str::to_owned).collect();
    let hint = nearest(name, &known)
        .map_or_else(|| "`mergelab methods` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
    CliError::Usage(format!("there is no method `{name}`; {hint}"))
}
