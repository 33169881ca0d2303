//! End-to-end and tidy tests
