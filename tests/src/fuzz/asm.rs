//! Assembly texts.

use dojoc_ir::program::verify::structure;
use dojoc_ir::program::{container, parse};

use super::{Outcome, checked, coded, same_in_text};

/// Reads and checks an assembly text.
///
/// # Panics
/// As [`djx::check`](super::djx::check).
pub fn check(text: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(text) else {
        return Outcome::Refused;
    };
    let (program, places) = match parse::parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => {
            coded(&errors.0);
            return Outcome::Refused;
        }
    };
    for span in places.values() {
        assert!(
            text.get(span.clone()).is_some(),
            "{span:?} is not in the text"
        );
    }
    same_in_text(&program);
    let outcome = checked(&program);
    if structure(&program).is_empty() {
        let file = container::encode(&program);
        assert_eq!(container::decode(&file).as_ref(), Ok(&program));
    }
    outcome
}
