//! The pages of the merge methods: formula, source, parameters and an example of each, from the table that the language is
//! read by.

mod pages;
#[cfg(test)]
mod tests;

use pages::{PAGES, PARAMS, Page};

use crate::experiment::{Kind, Method, Need, Param, method};

/// A line for each method: its name and what it does.
pub fn list() -> Vec<(&'static str, &'static str)> {
    PAGES.iter().map(|page| (page.method, page.summary)).collect()
}

/// The names there are, by kind.
pub fn names() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|page| page.method)
}

/// A method's page, Markdown.
pub fn page(name: &str) -> Option<String> {
    let method = method(name)?;
    let page = PAGES.iter().find(|page| page.method == method.name)?;
    let Page { method: name, title, summary, formula, details, source, when } = page;
    let mut text = format!("# `{name}`: {title}\n\n{}.\n\n```text\n", sentence(summary));
    for line in formula.split(";   ") {
        text += &format!("{line}\n");
    }
    text += "```\n\n";
    if !details.is_empty() {
        text += &format!("{details}\n\n");
    }
    text += &format!("Source: {source}.\n\n**When.** {when}\n\n## Takes\n\n{}", takes(method));
    if !method.params.is_empty() {
        text += "\n## Parameters\n\n| parameter | takes | default | |\n| --- | --- | --- | --- |\n";
        for param in method.params {
            let (kind, default) =
                (range(param), param.default.map_or("required".into(), |default| format!("`{default}`")));
            text += &format!("| `{}` | {kind} | {default} | {} |\n", param.name, meaning(method, param));
        }
        let own: Vec<_> = method.params.iter().filter(|param| param.per_model).collect();
        if !own.is_empty() {
            let names: Vec<_> = own.iter().map(|param| format!("`{}`", param.name)).collect();
            let names = names.join(" and ");
            text += &format!(
                "\nEach model may have its own {names} ([parameters](../experiment-file.md#parameters-of-one-model)).\n"
            );
        }
        if method.params.iter().any(|param| matches!(param.kind, Kind::Number(..))) {
            text += "\nA number may be a list over depth, or differ by tensor name ([values](../experiment-file.md#values-over-depth)).\n";
        }
    }
    text += &format!("\n## Example\n\n```yaml\n{}```\n", example(method));
    Some(text)
}

/// With a capital at its beginning.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn takes(method: &Method) -> String {
    let pair = method.models == (1, 1) && method.base == Need::Must;
    let models = match method.models {
        _ if pair => "one model, beside which the base may be named".to_owned(),
        (1, 1) => "one model".to_owned(),
        (least, most) if least == most => format!("{least} models"),
        (least, usize::MAX) => format!("{least} or more models"),
        (least, most) => format!("{least} to {most} models"),
    };
    let mut text = format!("- `models`: {models}\n");
    for (key, need) in [("grams", method.grams), ("base", method.base)] {
        match need {
            Need::Must => text += &format!("- `{key}`: required\n"),
            Need::May => text += &format!("- `{key}`: optional\n"),
            Need::No => {}
        }
    }
    if method.takes_fishers() {
        text += "- `fishers`: required\n";
    }
    text
}

fn range(param: &Param) -> String {
    let bound = |value: f64| format!("{value}");
    match param.kind {
        Kind::Number(min, max) if min <= f64::MIN && max >= f64::MAX => "a number".to_owned(),
        Kind::Number(min, max) if max >= f64::MAX => format!("a number, {} or more", bound(min)),
        Kind::Number(min, max) => format!("a number from {} to {}", bound(min), bound(max)),
        Kind::Whole(min, u64::MAX) => format!("a whole number, {min} or more"),
        Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Word(words) => words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", "),
    }
}

fn meaning(method: &Method, param: &Param) -> &'static str {
    let of = |method: &str| PARAMS.iter().find(|(who, name, _)| *who == method && *name == param.name);
    of(method.name).or_else(|| of("*")).map_or("", |(.., meaning)| meaning)
}

/// An experiment with one merge of this method.
fn example(method: &Method) -> String {
    let count = if method.models.1 == 1 { 1 } else { 2 };
    let models = &["math", "code"][..count];
    let mut text = "name: example\nmodels:\n".to_owned();
    if method.base != Need::No {
        text += "  base: { path: models/base }\n";
    }
    for model in models {
        text += &format!("  {model}: {{ path: models/{model} }}\n");
    }
    let captured = method.grams == Need::Must || method.takes_fishers();
    if captured {
        text += "data:\n";
        for model in models {
            text += &format!("  {model}: {{ path: data/{model}.jsonl, text: \"{{{{ text }}}}\", rows: 500 }}\n");
        }
        text += if method.takes_fishers() { "fishers:\n" } else { "grams:\n" };
        for model in models {
            text += &format!("  {model}: {{ model: {model}, data: {model} }}\n");
        }
    }
    text += &format!("merges:\n  merged:\n    method: {}\n    models: [{}]\n", method.name, models.join(", "));
    if method.base != Need::No {
        text += "    base: base\n";
    }
    if captured {
        let key = if method.takes_fishers() { "fishers" } else { "grams" };
        text += &format!("    {key}: [{}]\n", models.join(", "));
    }
    for param in method.params {
        let value = match (param.name, method.name) {
            ("t", "nearswap") => "0.001",
            ("t" | "density", _) => "0.5",
            _ => continue,
        };
        text += &format!("    {}: {value}\n", param.name);
    }
    if method.grams == Need::Must && method.name != "mats" {
        text += "    alpha: 0.1\n";
    }
    text
}
