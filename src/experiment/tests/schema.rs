//! The schema says what the parser says.

use std::path::Path;

use serde_json::Value as Json;

use super::{DESIGN, errors_of};
use crate::experiment::{parse, schema};

/// Where the schema is kept for editors.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/experiment.schema.json");

#[test]
fn the_schema_in_docs_is_the_programs_own() {
    let printed = format!("{:#}\n", schema());
    if std::env::var_os("MERGELAB_BLESS").is_some() {
        std::fs::write(KEPT, &printed).expect("docs/ can be written");
    }
    let kept = std::fs::read_to_string(KEPT).expect("docs/experiment.schema.json");
    assert_eq!(kept, printed, "set MERGELAB_BLESS=1 to write it anew");
}

/// What of JSON Schema our schema uses, written down once more: enough to say that a value fits.
fn fits(root: &Json, schema: &Json, value: &Json) -> Result<(), String> {
    if let Some(pointer) = schema["$ref"].as_str() {
        let target = root.pointer(pointer.trim_start_matches('#')).ok_or("a dangling $ref")?;
        return fits(root, target, value);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let found: Result<Vec<_>, _> = options.iter().map(|option| fits(root, option, value).err().ok_or(())).collect();
        return found.map_or(Ok(()), |errors| Err(errors.join(" / ")));
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) { Ok(()) } else { Err(format!("{value} is not among {words:?}")) };
    }
    if !schema["if"].is_null() {
        let branch = if fits(root, &schema["if"], value).is_ok() { "then" } else { "else" };
        fits(root, &schema[branch], value)?;
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{value} is another"));
    }
    let kinds: Vec<&str> = schema["type"].as_str().map_or_else(
        || schema["type"].as_array().into_iter().flatten().filter_map(Json::as_str).collect(),
        |kind| vec![kind],
    );
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        return Err(format!("{value} is not {kinds:?}"));
    }
    let number = value.as_f64();
    if number.zip(schema["minimum"].as_f64()).is_some_and(|(found, min)| found < min) {
        return Err(format!("{value} is too small"));
    }
    if number.zip(schema["maximum"].as_f64()).is_some_and(|(found, max)| found > max) {
        return Err(format!("{value} is too big"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(root, &schema["items"], item)?;
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Json::Null, Json::Bool(false)) => return Err(format!("no key {key}")),
            (Json::Null, Json::Null) => {}
            (Json::Null, other) => fits(root, other, inner)?,
            (known, _) => fits(root, known, inner)?,
        }
    }
    let missing = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .find(|key| value.get(key).is_none());
    missing.map_or(Ok(()), |key| Err(format!("no {key} in {value}")))
}

fn json_of(text: &str) -> Json {
    serde_yaml::from_str(text).expect("YAML")
}

#[test]
fn the_designs_example_fits_the_schema() {
    let schema = schema();
    assert_eq!(fits(&schema, &schema, &json_of(DESIGN)), Ok(()));
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = schema();
    for wrong in [
        DESIGN.replace("alpha: 0.1", "alpha: 1.1"),
        DESIGN.replace("backend: vllm", "backend: vlm"),
        DESIGN.replace("into:", "unto:"),
        DESIGN.replace("max_length: 256", "max_length: 0"),
        DESIGN.replace("name: llama3-code-math\n", ""),
        DESIGN.replace("method: average", "method: avrage"),
    ] {
        assert!(fits(&schema, &schema, &json_of(&wrong)).is_err());
        assert!(parse(Path::new("x.yaml"), &wrong).is_err());
    }
}

/// Each object of the schema with a text that puts a key into the place it stands for.
fn places() -> Vec<(Json, &'static str)> {
    let schema = schema();
    let properties = &schema["properties"];
    let entry = |section: &str| properties[section]["additionalProperties"].clone();
    let task = entry("evals")["properties"]["tasks"]["items"]["anyOf"][1].clone();
    let gram = entry("grams");
    let pickle = gram["properties"]["pickle"].clone();
    let data = entry("data");
    let input = entry("commands")["properties"]["inputs"]["anyOf"][1]["additionalProperties"]["anyOf"][1].clone();
    let table = entry("tables");
    let merge = schema["$defs"]["merge"].clone();
    vec![
        (schema.clone(), "name: x\nKEY: z"),
        (entry("models"), "name: x\nmodels: { m: { KEY: z } }"),
        (
            entry("models")["properties"]["lora"]["anyOf"][1].clone(),
            "name: x\nmodels: { m: { path: p, lora: { KEY: z } } }",
        ),
        (data.clone(), "name: x\ndata: { m: { KEY: z } }"),
        (data["properties"]["rows"]["anyOf"][1].clone(), "name: x\ndata: { m: { rows: { KEY: z } } }"),
        (data["properties"]["messages"]["items"].clone(), "name: x\ndata: { m: { messages: [{ KEY: z }] } }"),
        (entry("commands"), "name: x\ncommands: { m: { KEY: z } }"),
        (input, "name: x\ncommands: { m: { inputs: { i: { KEY: z } } } }"),
        (gram, "name: x\ngrams: { m: { KEY: z } }"),
        (entry("fishers"), "name: x\nfishers: { m: { KEY: z } }"),
        (pickle, "name: x\ngrams: { m: { pickle: { KEY: z } } }"),
        (merge.clone(), "name: x\nmerges: { m: { KEY: z } }"),
        (
            merge["properties"]["models"]["items"]["anyOf"][1].clone(),
            "name: x\nmerges: { m: { models: [{ KEY: z }] } }",
        ),
        (merge["properties"]["rules"]["items"].clone(), "name: x\nmerges: { m: { rules: [{ KEY: z }] } }"),
        (entry("evals"), "name: x\nevals: { m: { KEY: z } }"),
        (task, "name: x\nevals: { m: { tasks: [{ KEY: z }] } }"),
        (table.clone(), "name: x\ntables: { m: { KEY: z } }"),
        (table["properties"]["rows"]["items"]["anyOf"][1].clone(), "name: x\ntables: { m: { rows: [m, { KEY: z }] } }"),
        (
            table["properties"]["columns"]["items"]["anyOf"][2].clone(),
            "name: x\ntables: { m: { columns: [{ KEY: z }] } }",
        ),
        (
            table["properties"]["columns"]["items"]["anyOf"][3].clone(),
            "name: x\ntables: { m: { columns: [{ mean: scores, KEY: z }] } }",
        ),
        (
            table["properties"]["rows"]["items"]["anyOf"][2].clone(),
            "name: x\ntables: { m: { rows: [{ task: t }, { KEY: z }] } }",
        ),
        (table["properties"]["across"]["anyOf"][1].clone(), "name: x\ntables: { m: { across: { KEY: z } } }"),
        (properties["settings"].clone(), "name: x\nsettings: { KEY: z }"),
        (properties["settings"]["properties"]["requires"].clone(), "name: x\nsettings: { requires: { KEY: z } }"),
    ]
}

#[test]
fn the_parser_knows_every_key_of_the_schema_and_no_other() {
    let unknown = |text: &str, key: &str| {
        let messages = match parse(Path::new("x.yaml"), &text.replace("KEY", key)) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.list().iter().map(|error| error.message.clone()).collect(),
        };
        messages.iter().any(|message| message.ends_with(&format!("has no key `{key}`")))
    };
    let mut keys = std::collections::BTreeSet::new();
    for (object, _) in places() {
        keys.extend(object["properties"].as_object().expect("keys").keys().cloned());
    }
    for (object, text) in places() {
        for key in &keys {
            // `name: x` stands in every text already.
            if text.starts_with("name: x\nKEY") && key == "name" {
                continue;
            }
            // This key makes a column a mean.
            if (text.contains("columns: [{ KEY") || text.contains("{ task: t }, { KEY")) && key == "mean" {
                continue;
            }
            let known = object["properties"].get(key).is_some();
            assert_eq!(known, !unknown(text, key), "{key} in {text}");
        }
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    for (object, text) in places() {
        for (key, property) in object["properties"].as_object().expect("keys") {
            assert!(property["description"].as_str().is_some_and(|about| about.ends_with('.')), "{key} in {text}");
        }
    }
    assert_eq!(errors_of("zzz: 1").len(), 2);
}
