//! See `dojoc_tests::fuzz::asm::check`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dojoc_tests::fuzz::asm::check(data);
});
