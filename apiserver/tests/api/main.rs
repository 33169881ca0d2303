//! The API server in one process, on a memory store: what a client sees.

mod answers;
mod collections;
mod custom;
mod connections;
mod objects;
mod policies;
mod server;
mod surface;
mod watches;
mod webhooks;
