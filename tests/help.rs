//! What `--help` and wrong flags say.

use crate::project::Project;

#[test]
fn every_command_explains_itself() {
    let project = Project::new();
    let help = |arguments: &[&str]| {
        let said = project.mergelab(&[arguments, &["--help"]].concat()).exits(0);
        format!("$ mergelab {}\n{}", [arguments, &["--help"]].concat().join(" "), said.stdout)
    };
    let commands = [
        "run",
        "status",
        "explain",
        "key",
        "graph",
        "render",
        "plot",
        "report",
        "show",
        "diff",
        "samples",
        "export",
        "extract-lora",
        "publish",
        "verify",
        "methods",
        "schema",
    ];
    insta::assert_snapshot!("mergelab", help(&[]));
    for command in commands {
        insta::assert_snapshot!(command, help(&[command]));
    }
    insta::assert_snapshot!("grams-export", help(&["grams", "export"]));
    insta::assert_snapshot!("import-mergekit", help(&["import", "mergekit"]));
}

#[test]
fn the_help_lists_every_command_and_not_the_hidden_one() {
    let said = Project::new().mergelab(&["--help"]).exits(0);
    let listed: Vec<_> = said
        .stdout
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        listed,
        [
            "run",
            "status",
            "explain",
            "key",
            "graph",
            "render",
            "plot",
            "report",
            "show",
            "diff",
            "samples",
            "grams",
            "import",
            "export",
            "extract-lora",
            "publish",
            "verify",
            "methods",
            "schema",
            "help"
        ]
    );
}

#[test]
fn wrong_flags_are_a_matter_of_usage() {
    let project = Project::new();
    project.mergelab(&["run"]).exits(2).says("<FILE>...");
    project.mergelab(&["rum"]).exits(2).says("unrecognized subcommand 'rum'");
    project.mergelab(&["run", "x.yaml", "--jobs", "0"]).exits(2).says("0 is not in 1..=1024");
    project
        .mergelab(&["run", "x.yaml", "--memory", "lots"])
        .exits(2)
        .says("a size is a number and a unit, such as 8GiB");
    project.mergelab(&["run", "x.yaml", "--memory", "-1"]).exits(2);
    project.mergelab(&["show", "s", "x.yaml", "--json", "--log"]).exits(2).says("cannot be used with");
}

#[test]
fn the_version_is_that_of_the_package() {
    let said = Project::new().mergelab(&["--version"]).exits(0);
    said.prints(concat!("mergelab ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_schema_is_one_json_document() {
    let schema = Project::new().mergelab(&["schema"]).exits(0).json();
    assert!(schema["properties"]["merges"].is_object(), "{schema}");
}

#[test]
fn methods_are_listed_and_each_has_a_page() {
    let project = Project::new();
    let list = project.mergelab(&["methods"]).exits(0);
    assert!(list.stdout.contains("\nties ") && list.stdout.contains("\nregmean++ "), "{}", list.stdout);
    let first = list.stdout.lines().next().unwrap().split_whitespace().next().unwrap().to_owned();
    let page = project.mergelab(&["methods", &first]).exits(0).stdout;
    assert!(page.contains("## Example") && page.starts_with(&format!("# `{first}`")), "{page}");
    let listed = project.mergelab(&["methods", "--json"]).exits(0).json();
    assert_eq!(listed.as_array().unwrap().len(), list.stdout.lines().count());
    assert!(project.mergelab(&["methods", "linear"]).exits(0).stdout.starts_with("# `average`"));
    project.mergelab(&["methods", "tise"]).exits(2).says("there is no method `tise`; did you mean `ties`?");
}
