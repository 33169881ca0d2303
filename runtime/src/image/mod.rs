//! Images: what they are called, what they do, which of them a node has.

mod layers;
mod profile;
mod reference;
mod store;
mod units;

pub(crate) use profile::render;
pub use profile::{
    HttpAnswer, HttpServer, ImageProfile, Invocation, LogLine, MemoryStep, Profiles, Requirement, Scripted, StopAnswer,
};
pub use reference::Reference;
pub use store::{ImageStore, PulledImage};
pub use units::{parse_bytes, parse_duration};
