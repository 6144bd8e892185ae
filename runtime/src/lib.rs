//! The runtime of dojoc: what executes programs on the host.
//!
//! [`kernels`] holds the arithmetic, at the granularity of one instruction of a Dojo core: a tile
//! product, a vector operation, a conversion. Every kernel gives the same bits on every host.
//! [`compute`] makes the compute instructions of a program of them. [`host`] is the border between
//! the memory of a program and the tensors of the host; [`exec`] runs programs, and so does
//! [`sanitize`], slowly and with every access checked. [`instance`] is what users of the crate call.

pub mod codes;
pub mod compute;
pub mod exec;
pub mod host;
pub mod instance;
pub mod kernels;
pub mod options;
pub mod sanitize;
