//! A kubelet and its two neighbours, as simple as can be: an API that stores objects, a runtime that keeps records.

pub mod api;
pub mod runtime;
pub mod world;
