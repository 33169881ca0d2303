//! The API server in one process, on a memory store: what a client sees.

mod answers;
mod collections;
mod connections;
mod objects;
mod server;
mod surface;
mod watches;
