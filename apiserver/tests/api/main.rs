//! The API server in one process, on a memory store: what a client sees.

mod answers;
mod audit;
mod collections;
mod connections;
mod custom;
mod encryption;
mod figures;
mod objects;
mod policies;
mod priorities;
mod server;
mod surface;
mod watches;
mod webhooks;
