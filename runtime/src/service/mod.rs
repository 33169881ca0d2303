//! The CRI calls, as containerd answers them.

mod exec;
mod image_service;
mod runtime_service;

pub(crate) use exec::{Executed, execute};
