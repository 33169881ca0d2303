//! The messages, clients and servers of `runtime.v1`, compiled from `proto/runtime.proto`.
//!
//! What each field means is said by `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.

// Generated code is not ours to document or to shape.
#![allow(missing_docs, clippy::all, rustdoc::all)]

tonic::include_proto!("runtime.v1");
