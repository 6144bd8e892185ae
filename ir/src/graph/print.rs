//! The text form of a module.
