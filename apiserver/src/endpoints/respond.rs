//! Writing answers: in the negotiated form, with warnings, compressed if they are large.

use std::sync::Arc;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use minik8s_api::protobuf;
use minik8s_api::status::Status;
use minik8s_streaming::BoxedStream;
use serde_json::Value;

use super::held::Held;
use super::pieces::{Gzip, PIECE_BYTES, Pieces};
use crate::audit::AuditContext;
use crate::metrics::LongRunning;
use crate::negotiate::{self, Encoding, JSON};
use crate::registry::Warnings;
use crate::serve::PeerAddress;

/// Answers from this size on are compressed for clients that take it
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go` `defaultGzipThresholdBytes`).
const GZIP_THRESHOLD_BYTES: u64 = 128 * 1024;

/// What an answer depends on besides its content.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// How a large answer is coded, if the client takes gzip.
    pub gzip: Option<Gzip>,
    /// Indented JSON.
    pub pretty: bool,
    /// How a Status is written.
    pub status_encoding: Encoding,
    /// Warnings for the client.
    pub warnings: Warnings,
    /// What the request leaves in the audit log.
    pub audit: AuditContext,
    /// Counts an answer that stays open.
    pub open: Option<Arc<LongRunning>>,
}

impl Reply {
    /// Reads what a request says about its answer. Like Kubernetes, indents for browsers and curl.
    pub fn new(request: &Parts, pretty: Option<bool>, warnings: Warnings, audit: AuditContext) -> Reply {
        let status_encoding = negotiate::of_status(&request.headers, true);
        let text =
            |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let agent = text(http::header::USER_AGENT);
        let by_hand = ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix));
        let gzip = text(ACCEPT_ENCODING)
            .split(',')
            .any(|coding| coding.split(';').next().unwrap_or_default().trim() == "gzip")
            .then(|| gzip_for(request.extensions.get()));
        Reply { gzip, pretty: pretty.unwrap_or(by_hand), warnings, status_encoding, audit, open: None }
    }

    /// A stream that is passed on after an upgrade: the answer lasts as long as it does.
    pub fn hold(&self, stream: BoxedStream) -> BoxedStream {
        Box::new(Held::new(stream, (self.audit.completion(), self.open.clone())))
    }

    /// An answer of JSON bytes.
    pub fn json(&self, code: StatusCode, bytes: Bytes) -> Response<Body> {
        self.audit.response_object(&bytes);
        let bytes = if self.pretty { indent(bytes) } else { bytes };
        self.bytes(code, JSON, bytes)
    }

    /// An answer of JSON that is written as it is sent, if it is large and nobody wants to look at the whole of it.
    pub fn json_pieces(&self, code: StatusCode, pieces: Pieces) -> Response<Body> {
        if pieces.size() <= PIECE_BYTES as u64 || self.pretty || self.audit.wants_response() {
            return self.json(code, pieces.collect());
        }
        let gzip = self.gzip.filter(|_| pieces.size() >= GZIP_THRESHOLD_BYTES);
        self.answer(code, JSON, Body::new(pieces.into_body(gzip)), gzip.is_some())
    }

    /// A value in an encoding. Values that protobuf cannot express are written as JSON.
    pub fn value(&self, code: StatusCode, encoding: Encoding, value: &Value) -> Response<Body> {
        if encoding != Encoding::Json && self.audit.wants_response() {
            self.audit.response_object(&to_bytes(value));
        }
        match encoding {
            Encoding::Json => self.json(code, to_bytes(value)),
            Encoding::Yaml => match serde_yaml::to_string(value) {
                Ok(text) => self.bytes(code, encoding.media_type(), Bytes::from(text)),
                Err(error) => self.status(&Status::internal_error(error)),
            },
            Encoding::Protobuf => match protobuf::encode_object(value) {
                Ok(bytes) => self.bytes(code, encoding.media_type(), Bytes::from(bytes)),
                Err(_) => self.json(code, to_bytes(value)),
            },
        }
    }

    /// An error, or a success without object.
    pub fn status(&self, status: &Status) -> Response<Body> {
        self.audit.response_status(status);
        let code = match status.code {
            0 => StatusCode::OK,
            code => StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let mut response = match self.status_encoding {
            Encoding::Json => self.json(code, Bytes::from(status.to_bytes())),
            encoding => self.value(code, encoding, &status.to_value()),
        };
        if let Some(seconds) = status.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Plain text.
    pub fn text(&self, code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
        self.bytes(code, "text/plain; charset=utf-8", text.into())
    }

    fn bytes(&self, code: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<Body> {
        match self.gzip.filter(|_| bytes.len() as u64 >= GZIP_THRESHOLD_BYTES) {
            gzip @ Some(_) => self.answer(code, media_type, Body::new(Pieces::whole(bytes).into_body(gzip)), true),
            None => self.answer(code, media_type, Body::from(bytes), false),
        }
    }

    fn answer(&self, code: StatusCode, media_type: &'static str, body: Body, gzip: bool) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        for warning in self.warnings.take() {
            if let Ok(value) = HeaderValue::from_str(&warning_header(&warning)) {
                headers.append(WARNING, value);
            }
        }
        response
    }
}

/// `299 - "text"`, quoted as HTTP wants it (`k8s.io/apimachinery/pkg/util/net/http.go` `NewWarningHeader`).
pub fn warning_header(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("299 - \"{}\"", visible.replace('\\', "\\\\").replace('"', "\\\""))
}

fn to_bytes(value: &Value) -> Bytes {
    let mut out = BytesMut::with_capacity(1024).writer();
    serde_json::to_writer(&mut out, value).expect("a Value encodes into memory");
    out.into_inner().freeze()
}

fn indent(bytes: Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(&bytes).and_then(|value| serde_json::to_vec_pretty(&value)) {
        Ok(mut pretty) => {
            pretty.push(b'\n');
            Bytes::from(pretty)
        }
        Err(_) => bytes,
    }
}

fn gzip_for(peer: Option<&PeerAddress>) -> Gzip {
    let is_near = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    if is_near { Gzip::Framed } else { Gzip::Compressed }
}
