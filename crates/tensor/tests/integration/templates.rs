//! Chat templates against `transformers` (`tests/reference/templates.py`).

use mergelab_tensor::text::chat::{ChatTemplate, Turn};
use serde_json::Value;

use crate::support::{python, reference_program};

#[test]
fn chat_templates_render_as_in_transformers() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cases.json");
    reference_program(&python, "templates.py", &[path.to_str().unwrap()]);
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(cases.len(), 5);
    let mut different = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let turns: Vec<Turn> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|turn| Turn { role: text(&turn["role"]), content: text(&turn["content"]) })
            .collect();
        let tokens =
            [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.to_owned(), token.to_owned()));
        let template =
            ChatTemplate::compile(case["template"].as_str().unwrap(), format!("case {index}"), tokens.to_vec());
        let found = template.unwrap().render_with_assistant(&turns);
        let rendered = if case["assistant"].is_null() {
            let plain =
                ChatTemplate::compile(case["template"].as_str().unwrap(), String::new(), tokens.to_vec()).unwrap();
            plain.render(&turns)
        } else {
            found.clone().map(|(text, _)| text)
        };
        if rendered != Ok(text(&case["text"])) {
            different.push(format!("case {index}:\n{rendered:?}\n{:?}", case["text"]));
        }
        if let Some(expected) = case["assistant"].as_array() {
            let ranges: Vec<Value> =
                found.unwrap().1.iter().map(|range| serde_json::json!([range.start, range.end])).collect();
            assert_eq!(&ranges, expected, "case {index}");
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
