//! Executables.

use dojoc_ir::program::container;

use super::{Outcome, checked, coded};

/// Reads and checks an executable.
///
/// # Panics
/// When a message has no code or calls itself a defect of dojoc, or when a sound program changes by
/// being written and read.
pub fn check(file: &[u8]) -> Outcome {
    let identity = container::identity(file).map_err(|errors| coded(&errors.0));
    let program = match container::decode(file) {
        Ok(program) => program,
        Err(errors) => {
            coded(&errors.0);
            return Outcome::Refused;
        }
    };
    // Files differ in who wrote them, and in nothing else.
    let ours = container::Identity::of(&program);
    if identity.is_ok_and(|identity| identity == ours) {
        let again = container::encode(&program);
        assert!(again == file, "another file says the same");
    }
    checked(&program)
}
