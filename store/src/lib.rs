//! The replicated, versioned key-value store
