//! Reads the text form of a module.
