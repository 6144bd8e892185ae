//! Checks a module.
