//! Nothing of this machine, its people and their secrets goes to the hub: what is written for it is cleaned, and what
//! cannot be changed is looked through.
//!
//! Texts that mergelab writes, and the experiment file, are cleaned: an absolute path becomes its last component; tokens,
//! values of variables that are named like secrets, and this machine's name go. Files of the artifact stay what their
//! digest says, but for a path that a model's configuration keeps of where it once lay (`_name_or_path`), which no
//! library reads.

use std::path::Path;

/// What stands where something was taken out: a plain word to YAML.
const REMOVED: &str = "(removed)";

/// What tokens begin with, and how many characters follow at least.
const TOKENS: [(&str, usize); 8] = [
    ("hf_", 16),
    ("api_org_", 16),
    ("ghp_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("sk-", 20),
    ("AKIA", 16),
    ("xoxb-", 16),
];

/// Endings of names of variables whose values nobody is to see.
const SECRET: [&str; 7] = ["TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS", "AUTH"];

/// Values that are no secret whatever the variable is called.
const SHORTEST_SECRET: usize = 8;

/// What is known of this machine and of who works on it.
#[derive(Clone, Debug, Default)]
pub struct Scrubber {
    /// Values that nobody is to see.
    secrets: Vec<String>,
    /// Directories of this machine, the longest first.
    roots: Vec<String>,
    /// Its name, and that of the machine that made what is published.
    hosts: Vec<String>,
}

/// What a file holds that is not to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A token, or the value of a variable that is named like a secret.
    Secret,
    /// A path of this machine.
    Path,
}

impl Found {
    /// In words; never the thing itself.
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "a token or another secret",
            Self::Path => "a path of this machine",
        }
    }
}

impl Scrubber {
    /// Of machines with these names, these variables, tokens that come from elsewhere, and directories.
    pub fn new(
        hosts: &[&str],
        variables: impl IntoIterator<Item = (String, String)>,
        tokens: impl IntoIterator<Item = String>,
        directories: &[&Path],
    ) -> Self {
        let mut scrubber = Self::default();
        for (name, value) in variables {
            let value = value.trim();
            if is_secret_name(&name) && value.len() >= SHORTEST_SECRET {
                scrubber.secrets.push(value.to_owned());
            } else if matches!(name.as_str(), "HOME" | "TMPDIR" | "HF_HOME" | "HF_HUB_CACHE") {
                scrubber.add_root(Path::new(value));
            }
        }
        scrubber.secrets.extend(tokens.into_iter().filter(|token| token.len() >= SHORTEST_SECRET));
        for directory in directories {
            scrubber.add_root(directory);
        }
        scrubber.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        scrubber.roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
        let hosts = hosts.iter().filter(|host| !matches!(**host, "" | "localhost"));
        scrubber.hosts = hosts.map(|host| (*host).to_owned()).collect();
        scrubber
    }

    /// A directory that says where somebody works; `/` and `/tmp` do not.
    fn add_root(&mut self, directory: &Path) {
        let text = directory.to_string_lossy();
        let text = text.trim_end_matches('/');
        if directory.is_absolute() && text.matches('/').count() >= 2 && !self.roots.iter().any(|root| root == text) {
            self.roots.push(text.to_owned());
        }
    }

    /// A text without what is not to be published.
    pub fn clean(&self, text: &str) -> String {
        let text = without_values(text);
        let text = self.secrets.iter().fold(text, |text, secret| text.replace(secret, REMOVED));
        let text = without_tokens(&text);
        let text = self.without_paths(&text);
        self.hosts.iter().fold(text, |text, host| without_host(&text, host))
    }

    /// What a file that cannot be changed holds.
    pub fn find(&self, bytes: &[u8]) -> Option<Found> {
        let text = String::from_utf8_lossy(bytes);
        // A vocabulary has every word that somebody may have taken for a password.
        let is_word = |secret: &str| secret.len() < 16 && !secret.bytes().any(|byte| byte.is_ascii_digit());
        let mut secrets = self.secrets.iter().filter(|secret| !is_word(secret));
        if secrets.any(|secret| text.contains(secret)) || without_tokens(&text) != text {
            return Some(Found::Secret);
        }
        self.roots.iter().any(|root| root_in(&text, root).is_some()).then_some(Found::Path)
    }

    /// A configuration of a model without paths of where it once lay; `None` where it has none.
    ///
    /// Changed are values of keys that end in `name_or_path`, `_file` or `_dir`, where the whole value is an absolute path.
    pub fn clean_config(&self, json: &str) -> Option<String> {
        let mut cleaned = String::with_capacity(json.len());
        let mut rest = json;
        let mut changed = false;
        while let Some(at) = rest.find("\"/") {
            let key = rest[..at].trim_end().strip_suffix(':').map_or("", str::trim_end);
            let is_of_path = ["name_or_path\"", "_file\"", "_dir\""].iter().any(|ending| key.ends_with(ending));
            let value = &rest[at + 1..];
            let length = value.find('"').unwrap_or(value.len());
            cleaned += &rest[..=at];
            if is_of_path {
                cleaned += last_component(&value[..length]);
                changed = true;
            } else {
                cleaned += &value[..length];
            }
            rest = &value[length..];
        }
        changed.then(|| cleaned + rest)
    }

    /// A text in which absolute paths are given by their last component.
    fn without_paths(&self, text: &str) -> String {
        let mut cleaned = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(letter) = rest.chars().next() {
            let length = self.path_at(rest, before);
            if length > 0 {
                cleaned += last_component(&rest[..length]);
                before = rest[..length].chars().next_back();
                rest = &rest[length..];
            } else {
                cleaned.push(letter);
                before = Some(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
        cleaned
    }

    /// Length of the absolute path that a text begins with, 0 where it begins with none. `before` is what stands before it.
    fn path_at(&self, text: &str, before: Option<char>) -> usize {
        if let Some(rest) = text.strip_prefix("file://") {
            let path = self.path_at(rest, None);
            return if path > 0 { "file://".len() + path } else { 0 };
        }
        let quote = before.filter(|letter| matches!(letter, '"' | '\'' | '`'));
        let is_end = |letter: char| match quote {
            Some(quote) => letter == quote || letter == '\n',
            None => letter.is_whitespace() || "\"'`,;|<>()[]{}".contains(letter),
        };
        let whole = || text.find(is_end).unwrap_or(text.len());
        if self.roots.iter().any(|root| root_in(text, root) == Some(0)) {
            return whole();
        }
        // In `https://host/x`, `{out}/x`, `a/b` and `</x>` the slash begins nothing.
        let may_begin = before.is_none_or(|letter| letter.is_whitespace() || "\"'`,;|([{=:@!".contains(letter));
        let is_absolute = text.starts_with('/') && !text.starts_with("//") || text.starts_with("~/");
        if !may_begin || !is_absolute {
            return 0;
        }
        let length = whole();
        let components = text[..length].split('/').skip(1).filter(|part| !part.is_empty()).count();
        let of_home = usize::from(text.starts_with('~'));
        if components + of_home >= 2 { length } else { 0 }
    }
}

/// Whether the value of a variable is nobody's business, by the variable's name.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|ending| name.ends_with(ending))
}

/// The last component of a path, as text.
fn last_component(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// Where a directory, or something below it, is named in a text.
fn root_in(text: &str, root: &str) -> Option<usize> {
    let ends = |rest: &str| !rest.starts_with(|letter: char| letter.is_alphanumeric() || "_-".contains(letter));
    text.match_indices(root).map(|(at, _)| at).find(|at| ends(&text[at + root.len()..]))
}

/// A text without what looks like a token.
fn without_tokens(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    while let Some(start) = rest.find(is_part) {
        cleaned += &rest[..start];
        rest = &rest[start..];
        let run = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        let word = &rest[..run];
        let is_token = TOKENS.iter().any(|(prefix, least)| {
            word.strip_prefix(prefix).is_some_and(|tail| {
                tail.len() >= *least
                    && tail.bytes().any(|byte| byte.is_ascii_alphabetic())
                    && tail.bytes().filter(|byte| b"_-".contains(byte)).count() <= 3
                    && tail.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            })
        });
        cleaned += if is_token { REMOVED } else { word };
        rest = &rest[run..];
    }
    cleaned + rest
}

/// A text without the values that variables named like secrets are given in it: `HF_TOKEN: x`, `API_KEY=x`.
fn without_values(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    let is_part = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    while let Some(start) = rest.find(is_part) {
        let stands_alone = !rest[..start].ends_with(|letter: char| letter.is_alphanumeric());
        cleaned += &rest[..start];
        rest = &rest[start..];
        let run = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        let name = &rest[..run];
        cleaned += name;
        rest = &rest[run..];
        if !stands_alone || !name.contains('_') || !is_secret_name(name) {
            continue;
        }
        let after_quote = rest.strip_prefix('"').unwrap_or(rest);
        let Some(value) = after_quote.strip_prefix([':', '=']) else { continue };
        let value = value.trim_start_matches(' ');
        cleaned += &rest[..rest.len() - value.len()];
        let length = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |end| end + 2),
            _ => value.find([',', '}', ']', '\n', ' ']).unwrap_or(value.len()),
        };
        if length > 0 {
            cleaned += &format!("\"{REMOVED}\"");
        }
        rest = &value[length..];
    }
    cleaned + rest
}

/// A text without the name of a machine, and without the person's before an `@` that it follows. A name of fewer than four
/// letters is a word of every language, and goes only there.
fn without_host(text: &str, host: &str) -> String {
    let is_part = |letter: char| letter.is_alphanumeric() || "_-".contains(letter);
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(host) {
        let (head, tail) = (&rest[..at], &rest[at + host.len()..]);
        let person =
            head.strip_suffix('@').map(|head| head.trim_end_matches(|letter| is_part(letter) || letter == '.'));
        if head.ends_with(is_part) || tail.starts_with(is_part) || host.len() < 4 && person.is_none() {
            cleaned += &rest[..at + host.len()];
        } else {
            cleaned += person.unwrap_or(head);
            cleaned += REMOVED;
        }
        rest = tail;
    }
    cleaned + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubber() -> Scrubber {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = [
            variable("HF_TOKEN", "not-shaped-like-one"),
            variable("WANDB_API_KEY", "0123456789abcdef"),
            variable("MY_KEY", "short"),
            variable("DB_PASSWORD", "postgres"),
            variable("HOME", "/home/alice"),
            variable("LANG", "en_GB.UTF-8"),
        ];
        Scrubber::new(
            &["gpu-node-7", "localhost", "vm"],
            variables,
            [],
            &[Path::new("/data/alice/project"), Path::new("/tmp")],
        )
    }

    #[test]
    fn an_absolute_path_is_given_by_its_last_component() {
        let clean = |text: &str| scrubber().clean(text);
        let cases = [
            ("{ path: /srv/models/base }", "{ path: base }"),
            (
                "run: [python, \"/home/alice/My Scripts/train.py\", --out, '{out}/x']",
                "run: [python, \"train.py\", --out, '{out}/x']",
            ),
            ("--data=/mnt/x/rows.jsonl,-I/home/alice/include", "--data=rows.jsonl,-Iinclude"),
            ("path: ~/models/base/\n", "path: base\n"),
            ("see file:///data/alice/project/notes.md.", "see notes.md."),
            ("\"_name_or_path\": \"/data/alice/project\"", "\"_name_or_path\": \"project\""),
        ];
        for (text, cleaned) in cases {
            assert_eq!(clean(text), cleaned);
        }
    }

    #[test]
    fn what_only_looks_like_a_path_stays() {
        let kept = [
            "https://example.org/a/b",
            "s3://bucket/a/b",
            "{ path: models/base }",
            "../other/model",
            "</think>",
            "and/or",
            "system: /no_think",
            "{out}/weights",
            "{{ a }}/{{ b }}",
            "~5 minutes",
            "[math, code]",
            "1/2",
            "a // b",
        ];
        for text in kept {
            assert_eq!(scrubber().clean(text), text);
        }
    }

    #[test]
    fn secrets_go_by_value_by_shape_and_by_the_name_before_them() {
        let clean = |text: &str| scrubber().clean(text);
        assert_eq!(clean("a not-shaped-like-one b 0123456789abcdef"), "a (removed) b (removed)");
        assert_eq!(clean("x=hf_abcDEF0123456789xyz;"), "x=(removed);");
        assert_eq!(clean("env: { OPENAI_API_KEY: abc, SEED: 1 }"), "env: { OPENAI_API_KEY: \"(removed)\", SEED: 1 }");
        assert_eq!(clean("MY_SECRET=\"a b\" c"), "MY_SECRET=\"(removed)\" c");
        for kept in ["short", "hf_model_of_some_kind_or_other", "task-sk-learn", "KEY: value", "max_tokens: 1024"] {
            assert_eq!(clean(kept), kept);
        }
        assert_eq!(clean("on a vm by a.b@vm, or @vm"), "on a vm by (removed), or (removed)");
        assert_eq!(clean("alice@gpu-node-7:x, on gpu-node-7, gpu-node-70"), "(removed):x, on (removed), gpu-node-70");
    }

    #[test]
    fn a_file_that_cannot_be_changed_is_looked_through() {
        let find = |text: &str| scrubber().find(text.as_bytes());
        assert_eq!(find("{\"a\": \"/home/alice/x\"}"), Some(Found::Path));
        assert_eq!(find("{\"a\": \"hf_abcDEF0123456789xyz\"}"), Some(Found::Secret));
        assert_eq!(find("{\"postgres\": 17}"), None);
        assert_eq!(find("/home/alicent /usr/bin/python /data"), None);
    }

    #[test]
    fn a_configuration_loses_where_it_once_lay_and_nothing_else() {
        let config = r#"{"_name_or_path": "/data/bob/llama-3", "x": "/a/b", "tokenizer_file" : "/c/d/t.json", "y": 1}"#;
        let cleaned = r#"{"_name_or_path": "llama-3", "x": "/a/b", "tokenizer_file" : "t.json", "y": 1}"#;
        assert_eq!(scrubber().clean_config(config).as_deref(), Some(cleaned));
        assert_eq!(scrubber().clean_config(r#"{"_name_or_path": "org/llama"}"#), None);
    }
}
