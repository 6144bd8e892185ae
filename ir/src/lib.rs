//! The intermediate representations of dojoc and their exact meaning.
//!
//! A model passes through four levels. This crate defines them: data types, text forms, verifiers,
//! reference interpreters, and the machine description that the lower levels refer to.
//!
//! # GRAPH
//!
//! A *module* holds functions over one set of weights and states.
//!
//! - A *value* is a tensor, immutable and defined once (SSA). Its type is an element type and a
//!   shape; an extent is a constant or bounded (`n<=128`), in which case it is known at run time
//!   and everything is planned for the bound.
//! - A *weight* is a constant. Its identity is a place in a file (file, offset, length, element
//!   type); its bytes stay there, memory-mapped, and are neither copied nor printed.
//! - A *state* lives between runs and is shared by the functions: parameters being trained,
//!   moments of an optimiser, a key-value cache, the step of a random generator. A function reads
//!   the value from before the run; an output that *aliases* a state is its value after the run.
//!   Nothing else has an effect, so nodes may run in any order that respects operands.
//! - A *node* is an op with operands, results, attributes and, for control flow, *regions*. A
//!   region is isolated: it sees its parameters, weights and states, and nothing else.
//! - Every node carries the location it comes from, which survives all later levels.
//!
//! An *op* is defined in one file ([`ops`]). Its `eval` is the reference semantics; its tiling rule
//! ([`access`]) says the same as data, and is what lowering reads. The reference interpreter
//! ([`graph::eval`]) runs a function op by op with `eval`, and is what every other way of running a
//! model is compared with.
//!
//! Integers wrap. Element-wise arithmetic on 16-bit floats is computed in `f32` and rounded once;
//! contractions of 16-bit floats multiply exactly and sum in `f32`, in the order that the op's
//! documentation states.

pub mod access;
pub mod attr;
pub mod codes;
pub mod diag;
pub mod dim;
pub mod entity;
pub mod graph;
pub mod level;
pub mod mesh;
pub mod ops;
pub mod program;
pub mod scalar;
pub mod tensor;
pub mod tiled;
pub mod types;

pub mod formats;
pub mod machine;
mod view;
