//! Tests where all crates meet. The library has what they share.
