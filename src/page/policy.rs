//! What keeps a page from running anything but its own scripts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The Content-Security-Policy of a page with these scripts and this style sheet: they alone are used, by their
/// digests, and nothing is loaded from anywhere. The charts set the style of single elements, which is allowed.
pub(super) fn policy(scripts: &[&str], style: &str) -> String {
    let scripts: Vec<_> = scripts.iter().map(|script| source(script)).collect();
    format!(
        "default-src 'none'; script-src {}; style-src 'unsafe-inline'; style-src-elem {}; style-src-attr 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'",
        scripts.join(" "),
        source(style)
    )
}

/// The source expression that allows one text.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// JSON that ends no element and begins none, in whichever document it stands.
pub(super) fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // All of these stand within strings, where a number may stand for them.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_allowed_by_its_digest() {
        // printf 'doSomething();' | openssl dgst -sha256 -binary | openssl base64
        let digest = "'sha256-RFWPLDbv2BY+rCkDzsE+0fr8ylGr2R2faWMhq4lfEQc='";
        let policy = policy(&["doSomething();"], "");
        assert!(policy.contains(&format!("script-src {digest};")), "{policy}");
        assert!(!policy.contains("script-src 'unsafe-inline'"));
    }

    #[test]
    fn data_cannot_end_its_element_and_means_the_same() {
        let text = "</script><!--<script>\u{2028}& \"quoted\"";
        let json = inert(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '>', '&', '\u{2028}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
