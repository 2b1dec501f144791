//! Where the hub is, who asks, and where files are kept: from the variables that `huggingface_hub` reads.

use std::fmt;
use std::path::{Path, PathBuf};

use super::HubError;

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";

/// What the environment says.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Address of the hub, without a slash at its end.
    pub(super) endpoint: String,
    /// The directory with the cached repositories.
    pub(super) cache: PathBuf,
    /// Who asks.
    pub(super) token: Option<Token>,
    /// The network is not to be used.
    pub(super) offline: bool,
}

/// A token, and where it comes from. It is shown nowhere: not by `Debug`, and not in what a server says.
#[derive(Clone)]
pub(super) struct Token {
    text: String,
    from: String,
}

impl Token {
    fn new(text: &str, from: impl Into<String>) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self { text: text.to_owned(), from: from.into() })
    }

    /// For the one header that carries it.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.text)
    }

    /// The token itself.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where it comes from, in words.
    pub(super) fn from(&self) -> &str {
        &self.from
    }

    /// A text without it.
    pub(super) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.text, "[token]")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "token from {}", self.from)
    }
}

impl Settings {
    /// What some variables say.
    ///
    /// # Errors
    /// When the endpoint is no address, or no variable says where the cache is.
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_set = |name: &str| {
            let value = variable(name).unwrap_or_default().trim().to_ascii_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        };
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['@', '?', '#', ' '])) {
            let message =
                "HF_ENDPOINT is no address of a hub, such as https://hub.example.org (without a name or password)";
            return Err(HubError::Setting(message.to_owned()));
        }
        let user = variable("HOME").map(PathBuf::from);
        let path = |text: String| match (text.strip_prefix("~/"), &user) {
            (Some(rest), Some(user)) => user.join(rest),
            _ => PathBuf::from(text),
        };
        let home = variable("HF_HOME")
            .map(path)
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| path(cache).join("huggingface")))
            .or_else(|| user.as_ref().map(|user| user.join(".cache/huggingface")))
            .ok_or_else(|| {
                HubError::Setting("neither HF_HOME nor HOME says where the cache of the hub is".to_owned())
            })?;
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(path);
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
        let token = if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token(&variable, &token_file) };
        Ok(Self {
            endpoint,
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token,
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        })
    }
}

fn token(variable: &dyn Fn(&str) -> Option<String>, file: &Path) -> Option<Token> {
    let named = |name: &str| Token::new(&variable(name)?, name);
    named("HF_TOKEN").or_else(|| named("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
        let text = std::fs::read_to_string(file).ok()?;
        Token::new(&text, file.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::read(&|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_cache_is_where_other_programs_have_it() {
        let cache = |variables: &[(&str, &str)]| read(variables).unwrap().cache;
        assert_eq!(cache(&[("HOME", "/u")]), Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/c")]), Path::new("/c/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")]), Path::new("/u/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/big")]), Path::new("/big"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")]), Path::new("/hf/hub"));
        assert!(read(&[]).is_err());
    }

    #[test]
    fn a_token_comes_from_its_variable_or_its_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let from_file = read(&[("HF_HOME", home)]).unwrap();
        assert_eq!(from_file.token.as_ref().unwrap().bearer(), "Bearer hf_file");
        assert!(!format!("{from_file:?}").contains("hf_file"));
        let from_variable = read(&[("HF_HOME", home), ("HF_TOKEN", " hf_variable ")]).unwrap().token.unwrap();
        assert_eq!((from_variable.bearer().as_str(), from_variable.from()), ("Bearer hf_variable", "HF_TOKEN"));
        assert_eq!(from_variable.hide_in("no hf_variable here"), "no [token] here");
        assert!(read(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap().token.is_none());
        let other = dir.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let named = read(&[("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())]).unwrap();
        assert_eq!(named.token.unwrap().bearer(), "Bearer hf_other");
    }

    #[test]
    fn the_endpoint_is_an_address_without_a_password() {
        let endpoint = |text: &str| read(&[("HOME", "/u"), ("HF_ENDPOINT", text)]).map(|settings| settings.endpoint);
        assert_eq!(endpoint("http://127.0.0.1:8000/").unwrap(), "http://127.0.0.1:8000");
        assert_eq!(endpoint(" ").unwrap(), ENDPOINT);
        for wrong in ["hub.example.org", "ftp://x", "https://me:secret@x", "https://"] {
            let error = endpoint(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn offline_is_said_in_several_ways() {
        let offline = |value: &str| read(&[("HOME", "/u"), ("HF_HUB_OFFLINE", value)]).unwrap().offline;
        assert!(["1", "true", "YES", "on"].iter().all(|value| offline(value)));
        assert!(!["0", "false", "", "no"].iter().any(|value| offline(value)));
    }
}
