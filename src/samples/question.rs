//! The question in a prompt: what stands after the description and the examples.
//!
//! `lm_eval` keeps the prompt as one text. Where the document's own question begins in it is seen by the document itself:
//! the last place where one of its columns stands, longest first. From there it goes back to the start of that line, and
//! on to other columns that stand in the same paragraph.

use serde_json::Value;

/// Columns that are shorter say little about where they stand: a category, the letter of an answer.
const LEAST: usize = 8;

/// The part of a prompt that belongs to a document; all of it where none of the document's columns is in it.
pub(super) fn question<'a>(prompt: &'a str, document: &Value) -> &'a str {
    let columns = document.as_object().into_iter().flat_map(|row| row.values()).filter_map(Value::as_str);
    let places: Vec<(usize, usize)> = columns
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .filter_map(|text| Some((text.len(), prompt.rfind(text)?)))
        .collect();
    let Some(&(_, anchor)) = places.iter().max() else { return prompt };
    let paragraph = prompt[..anchor].rfind("\n\n").map_or(0, |at| at + 2);
    let first = places
        .iter()
        .filter(|(length, place)| *length >= LEAST && (paragraph..anchor).contains(place))
        .map(|(_, place)| *place)
        .min()
        .unwrap_or(anchor);
    let line = prompt[..first].rfind('\n').map_or(0, |at| at + 1);
    prompt[line..].trim()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn examples_before_the_question_are_not_the_question() {
        let document = json!({"question": "How many eggs are left?", "answer": "She has 18.\n#### 18"});
        let prompt = "Solve.\n\nQuestion: How many cats?\nAnswer: 2\n\nQuestion: How many eggs are left?\nAnswer:";
        assert_eq!(question(prompt, &document), "Question: How many eggs are left?\nAnswer:");
    }

    #[test]
    fn a_question_before_its_longer_passage_counts_too() {
        let document = json!({"passage": "A long passage about a river.", "question": "Is it long?", "kind": "Q"});
        let prompt = "Q: Is it wide?\nP: The sea.\n\nQ: Is it long?\nP: A long passage about a river.\nA:";
        assert_eq!(question(prompt, &document), "Q: Is it long?\nP: A long passage about a river.\nA:");
    }

    #[test]
    fn in_a_conversation_it_is_the_last_turn() {
        let document = json!({"question": "What is 3 + 4, exactly?"});
        let prompt = "<|user|>\nWhat is 1 + 1?\n<|assistant|>\n2\n<|user|>\nWhat is 3 + 4, exactly?\n<|assistant|>\n";
        assert_eq!(question(prompt, &document), "What is 3 + 4, exactly?\n<|assistant|>");
    }

    #[test]
    fn a_prompt_that_shows_nothing_of_its_document_is_shown_whole() {
        assert_eq!(question("Go on.", &json!({"text": "something else"})), "Go on.");
        assert_eq!(question("Go on.", &json!(["no columns"])), "Go on.");
    }
}
