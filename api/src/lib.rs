//! What the API's objects *are*: kinds as data, their types, codecs, patches, defaults, validation and tables.
//!
//! Everything here is a pure function over values; no clock but what is passed in, no I/O, no state but tables that are
//! read once. The API server is the pipeline that calls these functions in order:
//!
//! ```text
//!  bytes ──decode──► Value ──strategy──► defaulted, validated Value ──managed──► with managedFields ──► stored bytes
//!    JSON, YAML,       ▲                                                                                     │
//!    protobuf          │ patch (JSON, merge, strategic, apply)                                               ▼
//!                      └────────────────────────────────────────────── meta: read metadata, splice revisions
//!                                                                      table, protobuf: what readers asked for
//! ```
//!
//! An object is a `serde_json::Value` on the way in, after [`decode`] has made sure that its JSON types are those of its
//! [`schema::Type`], and encoded bytes everywhere else: a pod is 3.5 KB as bytes and ten times that as a `Value`.
//!
//! # Reading order
//! 1. [`kinds`]: one row for each served resource, and the snapshot of all rows; `convert` between versions of one kind.
//! 2. [`schema`]: the types, built from Kubernetes' own tables, or at run time from a CustomResourceDefinition.
//! 3. [`decode`] and [`protobuf`]: from bytes to values and back, with Go's errors.
//! 4. [`status`]: errors. [`quantity`], [`intstr`], [`time`]: the scalars with a grammar. [`meta`]: metadata.
//! 5. [`selector`], [`patch`], [`managed`]: choosing, changing, and owning fields.
//! 6. [`strategy`] and [`table`]: where kinds differ, one file each. [`custom`]: kinds that come at run time.
//!    [`admission`]: the expressions of policies and webhooks.
//! 7. [`template_hash`]: the hashes in the names of ReplicaSets and ControllerRevisions.
//!    [`certificate_request`]: what CertificateSigningRequests ask for.
//!
//! # Invariants
//! - Decoding the encoding of a decoded value gives that value again; decoding is bounded in depth ([`decode::MAX_DEPTH`]).
//! - A field that is not known is reported or dropped, as the client asked; it is never stored.
//! - Zeros are written or left out as Go's `encoding/json` does for Kubernetes' types, so that answers compare equal.
//!   `null` stands where Go writes a nil list, map or pointer without `omitempty`: read `null` as "not set".
//! - No error text is invented where Kubernetes has one.
//!
//! # Left out, compared with Kubernetes
//! - Internal ("hub") versions: a kind is stored in one of its external versions, and `kinds::convert` leads to the others.
//! - Preview (alpha, beta) API versions, and the fields behind feature gates whose types are in such versions.
//! - YAML is read as YAML 1.2: `yes`, `on` and `0644` are strings. kubectl converts YAML to JSON itself, by 1.1.
//! - Go's names of string types (`v1.PullPolicy`) in errors about a wrong JSON type: they say `string`.
//! - CBOR.

pub mod kinds;
pub mod schema;

pub mod decode;
pub mod protobuf;

pub mod intstr;
pub mod meta;
pub mod quantity;
pub mod status;
pub mod time;

pub mod managed;
pub mod patch;
pub mod selector;

pub mod admission;
pub mod strategy;
pub mod custom;
pub mod table;

pub mod certificate_request;
pub mod template_hash;
