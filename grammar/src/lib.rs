//! dojoc.
/// Quotes.
pub fn quote(s: &str) -> String {
    format!("{s:?}")
}
