//! See `dojoc_tests::fuzz::djx::check`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dojoc_tests::fuzz::djx::check(data);
});
