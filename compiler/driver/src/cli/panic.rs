//! Panics are defects of dojoc and reported as such.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use dojoc::render::Severity;
use dojoc::{Diagnostic, Kind, codes};

use super::console::Console;

thread_local! {
    /// Where the last panic of a caught call happened; `None` outside such calls.
    static CAUGHT: Cell<Option<String>> = const { Cell::new(None) };
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

fn message(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// Makes every panic a message with what to report.
pub fn install(console: Console) {
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let place = info
            .location()
            .map_or_else(String::new, |l| format!(" ({l})"));
        if CATCHING.get() {
            CAUGHT.set(Some(place));
            return;
        }
        let text = format!("{}{place}", message(info.payload()));
        let diagnostic = Diagnostic::new(codes::INTERNAL, Kind::Bug, text)
            .note(concat!("dojoc ", env!("CARGO_PKG_VERSION")))
            .help("please report this message with the command line and, if you can, the model");
        console.diagnostic(&diagnostic, Severity::Error, None);
    }));
}

/// Calls `f`.
///
/// # Errors
/// The message and place of a panic, which is not printed.
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(false);
    result.map_err(|payload| {
        let place = CAUGHT.take().unwrap_or_default();
        format!("panicked: {}{place}", message(&*payload))
    })
}
