//! Requests to the hub: redirects that keep the token at home, and waiting when it says so.
//!
//! A token is sent to the endpoint and nowhere else. The hub sends whoever asks for a large file to another host, whose
//! address has a signature of its own in it; redirects are followed here, one by one, so that this stays so.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::environment::{Settings, Token};
use super::{Control, HubError, Target};

/// How often a request is tried that did not get through.
const TRIES: u32 = 5;

/// The longest time that is waited because the hub says so, at once and altogether for one request.
const PATIENCE: Duration = Duration::from_mins(10);

/// After how long without a byte a connection counts as lost.
const SILENCE: Duration = Duration::from_mins(1);

const REDIRECTS: usize = 10;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// Address.
    pub(super) url: &'a str,
    /// Of a file: from which byte on.
    pub(super) from: u64,
}

/// Something that is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    /// `POST` or `PUT`.
    pub(super) method: &'a str,
    /// Address.
    pub(super) url: &'a str,
    /// Headers beside those that every request has.
    pub(super) headers: &'a [(String, String)],
    /// Bytes of the body.
    pub(super) length: u64,
}

/// One try of something that is sent, with its body.
pub(super) type Once<'a> = dyn FnMut(&mut dyn Read) -> Result<Response<Body>, HubError> + 'a;

/// The connection to the hub.
pub(super) struct Http {
    agent: Agent,
    endpoint: String,
    origin: Option<Origin>,
    token: Option<Token>,
    /// Whether anything was ever answered: where not, there is no network, and trying long is no use.
    reached: AtomicBool,
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("mergelab/", env!("CARGO_PKG_VERSION")))
            // What this machine trusts, so that a company's own hub or proxy works.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build();
        let origin = settings.endpoint.parse().ok().as_ref().and_then(Origin::of);
        Self {
            agent: config.new_agent(),
            endpoint: settings.endpoint.clone(),
            origin,
            token: settings.token.clone(),
            reached: AtomicBool::new(false),
        }
    }

    /// The body of a page, as text.
    pub(super) fn text(
        &self,
        url: &str,
        target: &Target<'_>,
        control: &Control,
    ) -> Result<(String, Response<()>), HubError> {
        let response = self.get(Request { url, from: 0 }, target, control)?;
        let (parts, body) = response.into_parts();
        let text = body.into_with_config().limit(1 << 30).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error.to_string()))?;
        Ok((text, Response::from_parts(parts, ())))
    }

    /// An answer that is none of an error, after as many tries and waits as it takes.
    pub(super) fn get(
        &self,
        request: Request<'_>,
        target: &Target<'_>,
        control: &Control,
    ) -> Result<Response<Body>, HubError> {
        let response = self.try_on(control, &mut || self.follow(request))?;
        if response.status().is_success() || response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        Err(self.refusal(response, target))
    }

    /// The answer to something that is sent, be it an error, after as many tries and waits as it takes. It is not
    /// redirected. `with_body` is called for every try, to call what it is given with the body.
    pub(super) fn send(
        &self,
        outgoing: Outgoing<'_>,
        with_body: &mut dyn FnMut(&mut Once<'_>) -> Result<Response<Body>, HubError>,
        control: &Control,
    ) -> Result<Response<Body>, HubError> {
        let Outgoing { method, url, headers, length } = outgoing;
        let uri: Uri = url.parse().map_err(|_| self.strange(format!("{url} is no address")))?;
        let is_home = self.origin.is_some() && Origin::of(&uri) == self.origin;
        self.try_on(control, &mut || {
            with_body(&mut |body| {
                let mut request = if method == "PUT" { self.agent.put(url) } else { self.agent.post(url) };
                request = request.header("Content-Length", length.to_string());
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                if let Some(token) = self.token.as_ref().filter(|_| is_home) {
                    request = request.header("Authorization", token.bearer());
                }
                // Joining parts and making commits take the hub their time.
                let request = request.config().timeout_recv_response(Some(PATIENCE)).build();
                let response = request.send(SendBody::from_reader(body));
                let response = response.map_err(|error| self.unreachable(&error.to_string()))?;
                self.reached.store(true, Ordering::Relaxed);
                Ok(response)
            })
        })
    }

    /// Does something until it gets an answer that is not to pass by waiting.
    fn try_on(
        &self,
        control: &Control,
        once: &mut dyn FnMut() -> Result<Response<Body>, HubError>,
    ) -> Result<Response<Body>, HubError> {
        let mut waited = Duration::ZERO;
        let mut tries = 0;
        loop {
            control.check()?;
            tries += 1;
            let outcome = once();
            let wait = match &outcome {
                Err(HubError::Unreachable { .. })
                    if tries < if self.reached.load(Ordering::Relaxed) { TRIES } else { 2 } =>
                {
                    backoff(tries)
                }
                Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                    let wait = told_to_wait(response).unwrap_or_else(|| backoff(tries));
                    if waited + wait > PATIENCE || tries > 4 * TRIES {
                        let (endpoint, with_token) = (self.endpoint.clone(), self.token.is_some());
                        return Err(HubError::RateLimited { endpoint, wait, with_token });
                    }
                    control.note(&format!(
                        "the hub limits how often it is asked: waiting {} s, as it says",
                        wait.as_secs()
                    ));
                    waited += wait;
                    wait
                }
                Ok(response) if is_passing(response.status()) && tries < TRIES => {
                    told_to_wait(response).filter(|wait| *wait <= SILENCE).unwrap_or_else(|| backoff(tries))
                }
                _ => return outcome,
            };
            control.sleep(wait)?;
        }
    }

    /// Whether there is a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Where the token comes from, in words.
    pub(super) fn token_from(&self) -> &str {
        self.token.as_ref().map(Token::from).unwrap_or_default()
    }

    /// One request with its redirects.
    fn follow(&self, request: Request<'_>) -> Result<Response<Body>, HubError> {
        let mut url = request.url.to_owned();
        for _ in 0..=REDIRECTS {
            let uri: Uri = url.parse().map_err(|_| self.strange(format!("{url} is no address")))?;
            let mut get = self.agent.get(&url);
            if request.from > 0 {
                get = get.header("Range", format!("bytes={}-", request.from));
            }
            let is_home = self.origin.is_some() && Origin::of(&uri) == self.origin;
            if let Some(token) = self.token.as_ref().filter(|_| is_home) {
                get = get.header("Authorization", token.bearer());
            }
            let response = get.call().map_err(|error| self.unreachable(&error.to_string()))?;
            self.reached.store(true, Ordering::Relaxed);
            let location = response.headers().get("Location").and_then(|location| location.to_str().ok());
            url = match location {
                Some(location) if response.status().is_redirection() => {
                    join(&uri, location).ok_or_else(|| self.strange("a redirect that leads nowhere".to_owned()))?
                }
                _ => return Ok(response),
            };
            if uri.scheme_str() == Some("https") && !url.starts_with("https://") {
                return Err(self.strange("a redirect out of https".to_owned()));
            }
        }
        Err(self.strange("it redirects without end".to_owned()))
    }

    /// What an answer of an error means.
    pub(super) fn refusal(&self, response: Response<Body>, target: &Target<'_>) -> HubError {
        let header = |name: &str| {
            let text = response.headers().get(name).and_then(|value| value.to_str().ok());
            text.unwrap_or_default().to_owned()
        };
        let (code, message) = (header("X-Error-Code"), header("X-Error-Message"));
        let status = response.status().as_u16();
        let message = self.clean(&if message.is_empty() { said_in(response.into_body()) } else { message });
        let (endpoint, repo) = (self.endpoint.clone(), target.repo.to_owned());
        let no_repo = || HubError::NoRepo {
            endpoint: self.endpoint.clone(),
            noun: target.kind.noun(),
            repo: target.repo.to_owned(),
            who: if self.token.is_some() { "this token" } else { "anybody without a token" },
        };
        match (status, code.as_str()) {
            (_, "GatedRepo") => {
                let page = format!("{endpoint}/{}{repo}", target.kind.page());
                HubError::Gated { repo, page, with_token: self.token.is_some() }
            }
            (_, "RepoNotFound") => no_repo(),
            (_, "RevisionNotFound") => HubError::NoRevision { repo, revision: target.revision.to_owned() },
            (_, "EntryNotFound") => target.no_file(),
            // Without a token the hub does not say whether a repository is missing or hidden.
            (401, _) if self.token.is_none() => no_repo(),
            (401, _) => {
                let token_from = self.token.as_ref().map(Token::from).unwrap_or_default().to_owned();
                HubError::BadToken { endpoint, repo, message, token_from }
            }
            (403, _) => HubError::Forbidden { repo, message },
            (404, _) if target.path.is_some() => target.no_file(),
            (404, _) => no_repo(),
            _ => HubError::Server { endpoint, status, what: target.to_string(), message },
        }
    }

    /// What a server says, as one short line without the token.
    pub(super) fn clean(&self, text: &str) -> String {
        let text: String = text.chars().filter(|letter| !letter.is_control()).take(300).collect();
        self.token.as_ref().map_or_else(|| text.clone(), |token| token.hide_in(&text))
    }

    pub(super) fn unreachable(&self, reason: &str) -> HubError {
        HubError::Unreachable { endpoint: self.endpoint.clone(), reason: self.clean(reason) }
    }

    pub(super) fn strange(&self, what: String) -> HubError {
        HubError::Strange { endpoint: self.endpoint.clone(), what }
    }
}

/// What the body of an error says: `{"error": "…"}`.
pub(super) fn said_in(body: Body) -> String {
    let text = body.into_with_config().limit(1 << 16).read_to_string().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value["error"].as_str().unwrap_or_default().to_owned()
}

/// How long to wait before the next try.
pub(super) fn backoff(tries: u32) -> Duration {
    Duration::from_millis(250 << tries.min(5))
}

/// Whether an answer may be another one soon.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504)
}

/// How long an answer says to wait: `Retry-After`, or the time that is left of the window in `RateLimit`.
fn told_to_wait(response: &Response<Body>) -> Option<Duration> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let after = header("Retry-After").and_then(|text| retry_after(text, SystemTime::now()));
    after.or_else(|| rate_limit(header("RateLimit")?))
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(date.timestamp().try_into().ok()?);
    Some(date.duration_since(now).unwrap_or_default())
}

/// Such as `"api";r=0;t=55`: the seconds until there is something left.
fn rate_limit(text: &str) -> Option<Duration> {
    let seconds = text.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())?;
    Some(Duration::from_secs(seconds))
}

/// Scheme, host and port of an address.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let is_https = uri.scheme_str()? == "https";
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Self { is_https, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

/// Where a redirect leads.
fn join(from: &Uri, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let scheme = from.scheme_str()?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let authority = from.authority()?;
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{authority}{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_a_browser_would_go() {
        let from: Uri = "https://hub.example:8443/a/b/resolve/main/x?y=1".parse().unwrap();
        for (location, url) in [
            ("https://storage.example/x?s=1", "https://storage.example/x?s=1"),
            ("//storage.example/x", "https://storage.example/x"),
            ("/api/x", "https://hub.example:8443/api/x"),
            ("z", "https://hub.example:8443/a/b/resolve/main/z"),
        ] {
            assert_eq!(join(&from, location).unwrap(), url);
        }
    }

    #[test]
    fn another_port_or_scheme_is_another_place() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://Hub.example/x"), origin("https://hub.example:443/y"));
        assert_ne!(origin("https://hub.example"), origin("http://hub.example"));
        assert_ne!(origin("http://hub.example:1"), origin("http://hub.example:2"));
        assert_ne!(origin("https://hub.example"), origin("https://hub.example.org"));
    }

    #[test]
    fn a_wait_is_told_in_seconds_as_a_date_or_by_a_window() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 12 ", now), Some(Duration::from_secs(12)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:00 GMT", now), Some(Duration::from_secs(23)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(rate_limit("\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(rate_limit("\"api\";r=3"), None);
    }

    #[test]
    fn waits_grow_up_to_a_limit() {
        let waits: Vec<_> = (1..8).map(|tries| backoff(tries).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }
}
