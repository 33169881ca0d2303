//! A whole kubelet between a fake API and a fake runtime, in virtual time.

mod fakes;
mod fields;
mod life;
mod resize;
