//! The JSON Schema of the experiment file, made from the parser's own key lists; editors complete and check with it.
//!
//! A schema sees one value at a time: names that refer to nothing, cycles and the like are the parser's to find.

use serde_json::{Map, Value as Json, json};

use super::keys::{FILE, FILTERED, Key, MERGE, SLICE, Shape};
use super::methods::{Kind, METHODS};

/// The form of a name.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// The schema (draft 2020-12) of an experiment file.
pub fn schema() -> Json {
    let mut schema = object(&[FILE]);
    if let Json::Object(map) = &mut schema {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "mergelab experiment".into());
        map.insert("$defs".into(), json!({ "merge": merge(), "slice": slice() }));
    }
    schema
}

fn object(groups: &[&[Key]]) -> Json {
    let keys = || groups.iter().copied().flatten();
    let properties: Map<String, Json> = keys().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = keys().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn property(key: &Key) -> Json {
    described(shape(&key.shape), key.about)
}

fn described(mut schema: Json, about: &str) -> Json {
    schema["description"] = about.into();
    schema
}

fn shape(shape: &Shape) -> Json {
    match shape {
        // A plain number where text is asked for counts as its spelling.
        Shape::Text | Shape::Path => json!({ "type": ["string", "number"] }),
        Shape::Name => json!({ "type": ["string", "number"], "pattern": NAME }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole(min) => json!({ "type": "integer", "minimum": min }),
        Shape::Number(min, max) => number(*min, *max),
        Shape::Size => {
            json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)? ?([kKMGT]?B|[KMGT]iB)?$" })
        }
        Shape::Word(words) => json!({ "enum": words() }),
        Shape::Any => json!({}),
        Shape::List(item) => json!({ "type": "array", "items": self::shape(item), "minItems": 1 }),
        Shape::Map(value) => json!({ "type": "object", "additionalProperties": self::shape(value) }),
        Shape::Section(value) => {
            let names = json!({ "pattern": NAME });
            json!({ "type": ["object", "null"], "propertyNames": names, "additionalProperties": self::shape(value) })
        }
        Shape::Object(groups) => object(groups),
        Shape::Merge => json!({ "$ref": "#/$defs/merge" }),
        Shape::Slice => json!({ "$ref": "#/$defs/slice" }),
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(self::shape).collect::<Vec<_>>() }),
    }
}

fn number(min: f64, max: f64) -> Json {
    let mut schema = json!({ "type": "number" });
    if min > f64::MIN {
        schema["minimum"] = min.into();
    }
    if max < f64::MAX {
        schema["maximum"] = max.into();
    }
    schema
}

/// A merge: its own keys, and the parameters of all methods.
///
/// A parameter that several methods have takes what any of them takes; that it belongs to the merge's own method is
/// for the parser to say.
fn merge() -> Json {
    let mut schema = with_params(MERGE);
    // RAM+ has an `alpha` of its own, which may be above 1.
    let alpha = schema["properties"]["alpha"].take();
    let about = alpha["description"].clone();
    schema["properties"]["alpha"] = json!({ "description": about });
    schema["if"] = json!({ "properties": { "method": { "const": "ramplus_tl" } }, "required": ["method"] });
    schema["then"] = json!({ "properties": { "alpha": { "type": ["number", "array"] } } });
    schema["else"] = json!({ "properties": { "alpha": alpha } });
    schema
}

/// A slice of a merge: its own keys, and the parameters of all methods.
fn slice() -> Json {
    with_params(SLICE)
}

/// A mapping with keys of its own and the parameters of all methods.
fn with_params(own: &[Key]) -> Json {
    let mut schema = object(&[own]);
    for param in METHODS.iter().flat_map(|method| method.params) {
        let methods: Vec<_> =
            METHODS.iter().filter(|method| method.param(param.name).is_some()).map(|method| method.name).collect();
        let about = format!("Parameter of {}.", methods.join(", "));
        let property = &mut schema["properties"][param.name];
        let kind = kind(param.kind);
        if property.is_null() {
            *property = described(kind, &about);
        } else if own.iter().all(|key| key.name != param.name) && !accepts(property, &kind) {
            *property = described(json!({ "anyOf": [property.take(), kind] }), &about);
        }
    }
    schema
}

fn accepts(property: &Json, kind: &Json) -> bool {
    let same = |known: &Json| {
        kind.as_object().is_some_and(|kind| kind.iter().all(|(key, value)| known.get(key) == Some(value)))
    };
    same(property) || property["anyOf"].as_array().is_some_and(|known| known.iter().any(same))
}

fn kind(kind: Kind) -> Json {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole(min, max) if max == u64::MAX => json!({ "type": "integer", "minimum": min }),
        Kind::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Word(words) => json!({ "enum": super::keys::words(words) }),
        Kind::Number(min, max) => {
            let one = number(min, max);
            let items = json!({ "anyOf": [one, object(&[FILTERED])] });
            json!({ "anyOf": [one, { "type": "array", "items": items, "minItems": 1 }] })
        }
    }
}
