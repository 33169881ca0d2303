//! One clock, one random source and one name generator for every component
