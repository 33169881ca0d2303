//! Continue tokens of chunked lists: where the next chunk starts, and at which revision.
//!
//! `k8s.io/apiserver/pkg/storage/continue.go`: base64 of `{"v":"meta.k8s.io/v1","rv":…,"start":"…"}`; the start is
//! relative to the collection, so that no token reaches beyond it.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use minik8s_api::status::Status;
use minik8s_store::Revision;
use serde::{Deserialize, Serialize};

/// As Go's `base64.RawURLEncoding`: no padding, lenient about unused bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

const VERSION: &str = "meta.k8s.io/v1";

/// Tokens are short; a longer one is not ours.
const MAX_TOKEN_BYTES: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v", default)]
    version: String,
    #[serde(rename = "rv", default)]
    revision: u64,
    #[serde(rename = "start", default)]
    start: String,
}

/// A decoded token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The revision of the list.
    pub revision: Revision,
    /// The first key of the next chunk, relative to the collection.
    pub start: String,
}

impl Continuation {
    /// Reads a token.
    pub fn decode(token: &str) -> Result<Continuation, Status> {
        let invalid =
            |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(format!("longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let data = BASE64.decode(token).map_err(|error| invalid(base64_words(&error)))?;
        let token: Token = serde_json::from_slice(&data).map_err(|error| invalid(json_words(&data, &error)))?;
        if token.version != VERSION {
            return Err(invalid(format!("server does not recognize this encoded version {}", token.version)));
        }
        if token.revision == 0 {
            return Err(invalid(format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        if token.start.is_empty() {
            return Err(invalid(format!("encoded start key empty (version {VERSION})")));
        }
        let start = token.start.strip_prefix('/').unwrap_or(&token.start);
        if start.is_empty() || start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(token.start));
        }
        Ok(Continuation { revision: token.revision, start: start.to_owned() })
    }

    /// Writes a token.
    pub fn encode(&self) -> String {
        let token = Token { version: VERSION.to_owned(), revision: self.revision, start: self.start.clone() };
        BASE64.encode(serde_json::to_vec(&token).expect("a token encodes"))
    }
}

fn base64_words(error: &base64::DecodeError) -> String {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            format!("illegal base64 data at input byte {at}")
        }
        _ => "illegal base64 data at input byte 0".to_owned(),
    }
}

/// Go's words for the commonest ways in which bytes are not a JSON object.
fn json_words(data: &[u8], error: &serde_json::Error) -> String {
    match data.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => "unexpected end of JSON input".to_owned(),
        Some(first) if !b"{[\"-0123456789tfn".contains(first) => {
            format!("invalid character '{}' looking for beginning of value", char::from(*first))
        }
        Some(_) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Some(_) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_there_and_back() {
        let token = Continuation { revision: 42, start: "rec/ap\0".to_owned() };
        assert_eq!(Continuation::decode(&token.encode()), Ok(token));
    }

    #[test]
    fn bad_tokens_are_refused_in_kubernetes_words() {
        let refused = |token: &str| Continuation::decode(token).expect_err("refused").message;
        assert_eq!(
            refused("zzz"),
            "invalid continue token: continue key is not valid: invalid character '\u{cf}' looking for beginning of value"
        );
        let escape = BASE64.encode(br#"{"v":"meta.k8s.io/v1","rv":3,"start":"../../x"}"#);
        assert_eq!(refused(&escape), "invalid continue token: continue key is not valid: ../../x");
        let zero = BASE64.encode(br#"{"v":"meta.k8s.io/v1","rv":0,"start":"x"}"#);
        assert!(refused(&zero).ends_with("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        assert!(refused("!").ends_with("illegal base64 data at input byte 0"));
    }
}
