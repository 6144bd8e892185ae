//! dojoc.
