//! An answer for people to read.
//!
//! What a model wrote may hold anything, escape sequences for the terminal too: what is printed here is tame.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::choice::named;
use super::comparison::is_truth;
use super::question::question;
use super::{Choice, Pair, Sample};
use crate::report::{plain, tame};

/// How much of a text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A line of so many columns for each, cut with `…`.
    Columns(usize),
    /// All of it, with its line breaks.
    Full,
}

/// Columns of a field's name with what stands around it.
const LABEL: usize = 12;

/// One answer: which document, the verdict where the score is 0 or 1, the question, the response, what the filter made of it, the target and all
/// scores.
pub fn answer(sample: &Sample, choice: &Choice, width: Width) -> String {
    let score = sample.score(&choice.metric, choice.filter.as_deref());
    let verdict = match score {
        None => "no score  ",
        Some(score) if !is_truth(score) => "",
        Some(score) if choice.is_best(score) => "right  ",
        Some(_) => "wrong  ",
    };
    let score = score.map(|score| format!(" {}", number(score))).unwrap_or_default();
    let mut text = format!("{} {}  {verdict}{choice}{score}\n", plain(&sample.task), sample.doc_id);
    field(&mut text, "question", &asked(sample), width);
    field(&mut text, "response", &responses(sample), width);
    if let Some(filtered) = filtered(sample, choice) {
        field(&mut text, "filtered", &filtered, width);
    }
    field(&mut text, "target", &target(sample), width);
    let scores = scores(sample);
    if scores.len() > 1 {
        field(&mut text, "scores", &scores.join(", "), width);
    }
    text
}

/// One document with the answers of two models, as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Both {
    /// What was asked.
    pub question: String,
    /// What the filter made of each response, or the response where it made no text of it.
    pub answers: [String; 2],
    /// The right answer.
    pub target: String,
}

impl Both {
    /// Of two samples of one document.
    pub fn of(samples: [&Sample; 2], choice: &Choice) -> Self {
        let answers = samples.map(|sample| filtered(sample, choice).unwrap_or_else(|| responses(sample)));
        Self { question: asked(samples[0]), answers, target: target(samples[0]) }
    }
}

/// The answers of two models to one document.
pub fn side_by_side(pair: &Pair, samples: [&Sample; 2], names: [&str; 2], choice: &Choice, width: Width) -> String {
    let scores = pair.scores().map(|score| score.map_or_else(|| "—".to_owned(), number));
    let mut text = format!(
        "{} {}  {choice}: {} {}, {} {}\n",
        plain(&pair.task),
        pair.doc_id,
        names[0],
        scores[0],
        names[1],
        scores[1]
    );
    let Both { question, answers, target } = Both::of(samples, choice);
    field(&mut text, "question", &question, width);
    for (name, answer) in names.iter().zip(&answers) {
        field(&mut text, name, answer, width);
    }
    field(&mut text, "target", &target, width);
    text
}

fn field(text: &mut String, label: &str, value: &str, width: Width) {
    let label = format!("{label:<0$}", LABEL - 4);
    match width {
        Width::Columns(columns) => {
            let room = columns.saturating_sub(label.width() + 4).max(20);
            text.push_str(format!("  {label}  {}", shortened(&plain(value), room)).trim_end());
        }
        Width::Full if value.contains('\n') => {
            text.push_str(&format!("  {}", label.trim_end()));
            for line in value.trim_end().split('\n') {
                text.push_str("\n    ");
                text.extend(line.chars().map(|c| if c == '\t' { c } else { tame(c) }));
            }
        }
        Width::Full => {
            text.push_str(&format!("  {label}  "));
            text.extend(value.chars().map(|c| if c == '\t' { c } else { tame(c) }));
        }
    }
    text.push('\n');
}

/// The beginning of a line, of at most so many columns.
fn shortened(line: &str, room: usize) -> String {
    if line.width() <= room {
        return line.to_owned();
    }
    let mut short = String::new();
    let mut columns = 1;
    for c in line.chars() {
        columns += c.width().unwrap_or(0);
        if columns > room {
            break;
        }
        short.push(c);
    }
    short.truncate(short.trim_end().len());
    short.push('…');
    if short.starts_with('\u{2068}') {
        // The isolate that `plain` opened is closed again.
        short.push('\u{2069}');
    }
    short
}

/// The question of the last prompt, or the document itself where there is no prompt.
fn asked(sample: &Sample) -> String {
    let prompt = sample.field("arguments").get(0).and_then(|request| match request {
        Value::Array(parts) => parts.first()?.as_str(),
        other => other.as_str(),
    });
    match prompt.filter(|prompt| !prompt.trim().is_empty()) {
        Some(prompt) => question(prompt, sample.field("doc")).to_owned(),
        None => words(sample.field("doc")),
    }
}

/// What the model answered: texts, or each continuation with its log-likelihood.
fn responses(sample: &Sample) -> String {
    let requests = items(sample.field("responses"));
    let texts = requests.iter().enumerate().flat_map(|(index, repeats)| {
        let continuation = continuation(sample, index);
        items(repeats).iter().map(move |response| response_text(response, continuation)).collect::<Vec<_>>()
    });
    joined(&texts.collect::<Vec<_>>())
}

/// What the chosen filter made of them, where that is a text of its own.
fn filtered(sample: &Sample, choice: &Choice) -> Option<String> {
    let of_requests = items(sample.of_filter("filtered", choice.filter.as_deref())?);
    let is_text = |item: &Value| item.is_string() || items(item).iter().any(Value::is_string);
    let texts = of_requests.iter().filter(|item| is_text(item)).map(words).collect::<Vec<_>>();
    (!texts.is_empty()).then(|| joined(&texts))
}

/// The right answer; of a choice between continuations the continuation too.
fn target(sample: &Sample) -> String {
    let target = sample.field("target");
    let chosen = target.as_u64().and_then(|index| continuation(sample, usize::try_from(index).ok()?));
    chosen.map_or_else(|| words(target), |chosen| format!("{target}: {}", chosen.trim()))
}

/// What a request of a log-likelihood continues its prompt with.
fn continuation(sample: &Sample, request: usize) -> Option<&str> {
    sample.field("arguments").get(request)?.get(1)?.as_str()
}

fn response_text(response: &Value, continuation: Option<&str>) -> String {
    let likelihood = match response {
        Value::Array(parts) => parts.first().and_then(Value::as_f64),
        other => other.as_f64(),
    };
    let Some(likelihood) = likelihood else { return words(response) };
    let greedy = if response.get(1) == Some(&Value::Bool(true)) { " (greedy)" } else { "" };
    let continuation = continuation.map(|text| format!("{} ", text.trim())).unwrap_or_default();
    format!("{continuation}{likelihood:.2}{greedy}")
}

/// Every score of a document.
fn scores(sample: &Sample) -> Vec<String> {
    let filters = sample.field("metrics").as_object().into_iter().flatten();
    filters
        .flat_map(|(filter, metrics)| {
            metrics.as_object().into_iter().flatten().map(move |(metric, _)| (metric, filter))
        })
        .filter_map(|(metric, filter)| {
            Some(format!("{} {}", named(metric, Some(filter)), number(sample.score(metric, Some(filter))?)))
        })
        .collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// A text as it is, anything else as JSON; nothing for null.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn joined(texts: &[String]) -> String {
    let separator = if texts.iter().any(|text| text.contains('\n')) { "\n" } else { " | " };
    texts.join(separator)
}

/// At most four digits after the point.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.4}") }
}

#[cfg(all(test, feature = "fetch"))]
mod tests {
    use serde_json::json;

    use super::super::tests::sample;
    use super::*;
    use crate::stats::Part;

    fn choice(metric: &str, filter: &str) -> Choice {
        Choice { metric: metric.to_owned(), filter: Some(filter.to_owned()), higher_is_better: true, n_shot: None }
    }

    fn generated(response: &str) -> Sample {
        sample(json!({
            "task": "gsm8k", "doc_id": 3, "doc": {"question": "How many eggs are left?"}, "target": "18",
            "arguments": [["Q: Two?\nA: 2\n\nQ: How many eggs are left?\nA:", {"until": ["\n"]}]],
            "responses": [[response]],
            "filtered": {"flexible": ["17"], "strict": ["[invalid]"]},
            "metrics": {"flexible": {"em": 0.0}, "strict": {"em": 0.0}},
        }))
    }

    #[test]
    fn a_generated_answer_shows_question_response_filtered_text_and_target() {
        let text = answer(&generated("She has\n17 left."), &choice("em", "flexible"), Width::Columns(41));
        insta::assert_snapshot!(text, @r"
        gsm8k 3  wrong  em (flexible) 0
          question  Q: How many eggs are left? A:
          response  She has 17 left.
          filtered  17
          target    18
          scores    em (flexible) 0, em (strict)…
        ");
    }

    #[test]
    fn all_of_it_keeps_its_lines() {
        let text = answer(&generated("She has\n  17 left.\n"), &choice("em", "strict"), Width::Full);
        insta::assert_snapshot!(text, @r"
        gsm8k 3  wrong  em (strict) 0
          question
            Q: How many eggs are left?
            A:
          response
            She has
              17 left.
          filtered  [invalid]
          target    18
          scores    em (flexible) 0, em (strict) 0
        ");
    }

    #[test]
    fn a_choice_shows_the_log_likelihood_of_each_continuation() {
        let sample = sample(json!({
            "doc_id": 7, "doc": {"question": "Is water wet?"}, "target": 1,
            "arguments": [["Is water wet?", " no"], ["Is water wet?", " yes"]],
            "responses": [[[-3.217, false]], [[-0.5, true]]],
            "filtered": {"none": [[-3.217, false], [-0.5, true]]},
            "metrics": {"none": {"acc": 1.0}},
        }));
        insta::assert_snapshot!(answer(&sample, &choice("acc", "none"), Width::Columns(80)), @r"
        t 7  right  acc (none) 1
          question  Is water wet?
          response  no -3.22 | yes -0.50 (greedy)
          target    1: yes
        ");
    }

    #[test]
    fn what_a_model_wrote_does_nothing_to_the_terminal() {
        for width in [Width::Columns(80), Width::Full] {
            let text = answer(&generated("\u{1b}[2Jgone\r\n\u{202e}70"), &choice("em", "flexible"), width);
            assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
        }
    }

    #[test]
    fn wide_letters_take_two_columns() {
        assert_eq!(shortened("日本語です", 7), "日本語…");
        assert_eq!(shortened("日本語", 6), "日本語");
        assert_eq!(shortened("eight ab", 7), "eight…");
    }

    #[test]
    fn a_record_of_a_few_fields_is_shown_as_far_as_it_goes() {
        let sample = sample(json!({"doc": {"text": "a row"}, "metrics": {"none": {"bits_per_byte": 1.234_56}}}));
        insta::assert_snapshot!(answer(&sample, &choice("bits_per_byte", "none"), Width::Columns(80)), @r#"
        t 0  bits_per_byte (none) 1.2346
          question  {"text":"a row"}
          response
          target
        "#);
    }

    #[test]
    fn two_models_stand_under_one_question() {
        let (first, second) = (generated("x"), generated("y"));
        let pair = Pair { task: "gsm8k".to_owned(), doc_id: 3, parts: [0.0, 1.0].map(Part::score) };
        let choice = choice("em", "flexible");
        let text = side_by_side(&pair, [&first, &second], ["avg", "regmean"], &choice, Width::Columns(80));
        insta::assert_snapshot!(text, @r"
        gsm8k 3  em (flexible): avg 0, regmean 1
          question  Q: How many eggs are left? A:
          avg       17
          regmean   17
          target    18
        ");
    }
}
