//! Chat templates, rendered as `transformers` renders them.
//!
//! `transformers` compiles them with Jinja2: `trim_blocks`, `lstrip_blocks`, loop controls, a `{% generation %}` block
//! around what the assistant says, `raise_exception`, `strftime_now` and its own `tojson`. Here the engine is minijinja
//! with Python's methods; printing is Python's ([`super::python`]), and maps keep their order.

use std::ops::Range;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value, context};

use super::error::TextError;
use super::python;
use super::tokenizer::TokenizerConfig;
use crate::failure::FileError;

/// Instructions that one rendering may take; a template that loops for ever is an error.
const FUEL: u64 = 10_000_000;

/// Stand around what the assistant says, in a rendering made to find it. Private-use characters at the end of the last
/// plane: no tokenizer's training text has them.
const OPEN: char = '\u{10FFF0}';
const CLOSE: char = '\u{10FFF1}';

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user`, `assistant` or what the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A compiled chat template with the variables a tokenizer gives it.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Where the template stands, for messages.
    place: String,
    special_tokens: Vec<(String, String)>,
    marks_generation: bool,
    /// Whether it asks for the date, so that its output depends on the day.
    dated: bool,
}

/// An environment whose values print as Python's do; shared by chat templates and by the templates of an experiment.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out: &mut Output, _: &mut State, value: &Value| {
        out.write_str(&python::str(value)).map_err(Error::from)
    });
    environment.add_filter("string", |value: Value| python::str(&value));
    environment.add_filter("tojson", |value: Value, kwargs: minijinja::value::Kwargs| python::tojson(&value, &kwargs));
    environment
}

/// A template engine's error in one line, with the line of the template.
pub(super) fn explain(error: &Error) -> String {
    let mut text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if error.kind() == ErrorKind::OutOfFuel {
        "it does not come to an end".clone_into(&mut text);
    }
    match error.line() {
        Some(line) => format!("{text} (line {line} of the template)"),
        None => text,
    }
}

impl ChatTemplate {
    /// The template of a model directory, or `lent` in its place.
    ///
    /// As `transformers` finds it: where there are files (`additional_chat_templates/*.jinja`, `chat_template.jinja`), they
    /// stand in the place of `chat_template` in `tokenizer_config.json`, and the one named `default` is taken, which
    /// `chat_template.jinja` is.
    ///
    /// # Errors
    /// When there is none, none of several is the default, or it cannot be read or compiled.
    pub fn find(model: &Path, config: &TokenizerConfig, lent: Option<&Path>) -> Result<Self, TextError> {
        let more = model.join("additional_chat_templates");
        let files =
            [lent.map(Path::to_path_buf), Some(more.join("default.jinja")), Some(model.join("chat_template.jinja"))];
        // A file that was lent is taken whether it is there or not, so that a wrong path is an error.
        let file = files.into_iter().enumerate().find_map(|(at, path)| path.filter(|path| at == 0 || path.exists()));
        if let Some(path) = file {
            let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
            return Self::compile(&text, path.display().to_string(), config.special_tokens());
        }
        let named = || config.template_names().into_iter().chain(names(&more)).collect::<Vec<_>>();
        if names(&more).is_empty()
            && let Some(text) = config.chat_template()
        {
            let place = format!("chat_template in {}", model.join("tokenizer_config.json").display());
            return Self::compile(&text, place, config.special_tokens());
        }
        Err(TextError::NoChatTemplate { model: model.to_path_buf(), named: named() })
    }

    /// Compiles a template; `place` says where it stands.
    ///
    /// # Errors
    /// When it is not a template.
    pub fn compile(source: &str, place: String, special_tokens: Vec<(String, String)>) -> Result<Self, TextError> {
        // Jinja takes every kind of line end for one, and has one in its output.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let (source, marks_generation) = generation_as_filter(&source);
        let mut environment = environment();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment
            .set_syntax(syntax.map_err(|error| TextError::Template { place: place.clone(), reason: explain(&error) })?);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| python::strftime_now(&format));
        environment.add_filter("_generation", |body: String| format!("{OPEN}{body}{CLOSE}"));
        let dated = source.contains("strftime_now");
        environment
            .add_template_owned("chat", source)
            .map_err(|error| TextError::Template { place: place.clone(), reason: explain(&error) })?;
        Ok(Self { environment, place, special_tokens, marks_generation, dated })
    }

    /// Where the template stands.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether its output depends on the day.
    pub fn dated(&self) -> bool {
        self.dated
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// What the template itself raises, or what the engine says of it.
    pub fn render(&self, turns: &[Turn]) -> Result<String, String> {
        Ok(unmark(&self.raw(turns, false)?).0)
    }

    fn raw(&self, turns: &[Turn], add_generation_prompt: bool) -> Result<String, String> {
        let messages: Vec<Value> = turns
            .iter()
            .map(|turn| {
                Value::from_pairs([
                    ("role", Value::from(turn.role.as_str())),
                    ("content", Value::from(turn.content.as_str())),
                ])
            })
            .collect();
        let fixed = context! { messages, tools => (), documents => (), add_generation_prompt };
        let tokens = Value::from_pairs(self.special_tokens.iter().map(|(name, token)| (name.clone(), token.clone())));
        let template = self.environment.get_template("chat").map_err(|error| explain(&error))?;
        template.render(context! { ..fixed, ..tokens }).map_err(|error| explain(&error))
    }

    /// Renders a conversation and finds what the assistant says in it, as ranges of characters.
    ///
    /// By the template's `{% generation %}` blocks where it has them; otherwise an assistant's turn is what the rendering
    /// up to and with it has over the rendering up to it with a generation prompt.
    ///
    /// # Errors
    /// As [`Self::render`]; and when those renderings are not prefixes of each other.
    pub fn render_with_assistant(&self, turns: &[Turn]) -> Result<(String, Vec<Range<usize>>), String> {
        let (text, marked) = unmark(&self.raw(turns, false)?);
        if self.marks_generation {
            return Ok((text, marked));
        }
        let mut ranges = Vec::new();
        for (index, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.role == "assistant") {
            let before = self.raw(&turns[..index], true)?;
            let through = if index + 1 == turns.len() { text.clone() } else { self.raw(&turns[..=index], false)? };
            if !text.starts_with(&through) || !through.starts_with(&before) {
                let said: String = turn.content.chars().take(40).collect();
                return Err(format!("the template renders a conversation's beginning unlike the whole ({said:?})"));
            }
            ranges.push(before.chars().count()..through.chars().count());
        }
        Ok((text, ranges))
    }
}

/// Names of the templates in a directory, sorted; none where there is no directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".jinja")?.to_owned())).collect();
    names.sort();
    names
}

/// Writes `{% generation %} … {% endgeneration %}` as a filter block, which leaves the whitespace rules as they are;
/// whether there was one.
fn generation_as_filter(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut found = false;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + length + 2];
        let body = &tag[2..tag.len() - 2];
        let word = body.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..start]);
        match word {
            "generation" | "endgeneration" => {
                found = true;
                let tag_word = if word == "generation" { "filter _generation" } else { "endfilter" };
                out.push_str(&tag.replacen(word, tag_word, 1));
            }
            _ => out.push_str(tag),
        }
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    (out, found)
}

/// Takes the marks out; the text, and the ranges of characters between them.
fn unmark(rendered: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(rendered.len());
    let (mut ranges, mut at, mut open) = (Vec::new(), 0, 0);
    for c in rendered.chars() {
        match c {
            OPEN => open = at,
            CLOSE => ranges.push(open..at),
            c => {
                text.push(c);
                at += 1;
            }
        }
    }
    (text, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(role: &str, content: &str) -> Turn {
        Turn { role: role.to_owned(), content: content.to_owned() }
    }

    fn compile(source: &str) -> ChatTemplate {
        ChatTemplate::compile(source, "test".to_owned(), vec![("bos_token".to_owned(), "<s>".to_owned())]).unwrap()
    }

    #[test]
    fn values_print_as_python_prints_them() {
        let template =
            compile("{{ true }} {{ none }} {{ ['a', 1] }} {{ {'b': false} }} {{ nothing }}{{ {'é': [1]} | tojson }}");
        assert_eq!(template.render(&[]).unwrap(), "True None ['a', 1] {'b': False} {\"é\": [1]}");
    }

    #[test]
    fn what_a_template_raises_is_the_message() {
        let template = compile("{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}");
        assert_eq!(template.render(&[turn("system", "x")]).unwrap_err(), "user first (line 1 of the template)");
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        let template = compile("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
        assert!(template.render(&[]).unwrap_err().contains("does not come to an end"));
    }

    #[test]
    fn the_assistants_words_are_found_by_generation_blocks() {
        let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content }};\
                      {% endgeneration %}{% else %}{{ m.content }};{% endif %}{% endfor %}";
        let turns = [turn("user", "hé"), turn("assistant", "yes"), turn("user", "b"), turn("assistant", "no")];
        let (text, ranges) = compile(source).render_with_assistant(&turns).unwrap();
        assert_eq!(text, "<s>[user]hé;[assistant]yes;[user]b;[assistant]no;");
        let said: Vec<String> = ranges.iter().map(|r| text.chars().skip(r.start).take(r.len()).collect()).collect();
        assert_eq!(said, ["yes;", "no;"]);
    }

    #[test]
    fn without_generation_blocks_they_are_found_by_prefixes() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let turns = [turn("user", "a"), turn("assistant", "yes"), turn("user", "b"), turn("assistant", "no")];
        let (text, ranges) = compile(source).render_with_assistant(&turns).unwrap();
        let said: Vec<String> = ranges.iter().map(|r| text.chars().skip(r.start).take(r.len()).collect()).collect();
        assert_eq!(said, ["yes</>", "no</>"]);
    }

    #[test]
    fn a_template_whose_beginnings_differ_is_refused_for_assistant_tokens() {
        let source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
        let turns = [turn("user", "a"), turn("assistant", "yes")];
        assert!(compile(source).render_with_assistant(&turns).unwrap_err().contains("unlike the whole"));
    }

    #[test]
    fn files_beat_the_configuration_and_the_default_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(model.join(name).parent().unwrap()).unwrap();
            std::fs::write(model.join(name), text).unwrap();
        };
        let find = |lent: Option<&Path>| {
            let config = TokenizerConfig::read(model).unwrap();
            ChatTemplate::find(model, &config, lent).map(|template| template.render(&[]).unwrap())
        };
        assert!(find(None).unwrap_err().to_string().contains("has no chat template"));
        write("tokenizer_config.json", r#"{"chat_template": [{"name": "rag", "template": "rag"}]}"#);
        assert!(find(None).unwrap_err().to_string().contains("none that is the default, only rag"));
        write("tokenizer_config.json", r#"{"chat_template": "configured"}"#);
        assert_eq!(find(None).unwrap(), "configured");
        write("additional_chat_templates/tool_use.jinja", "tools");
        assert!(find(None).unwrap_err().to_string().contains("none that is the default, only tool_use"));
        write("chat_template.jinja", "a\r\nfile");
        assert_eq!(find(None).unwrap(), "a\nfile");
        write("lent.jinja", "lent");
        assert_eq!(find(Some(&model.join("lent.jinja"))).unwrap(), "lent");
        assert!(find(Some(&model.join("nowhere.jinja"))).is_err());
    }
}
