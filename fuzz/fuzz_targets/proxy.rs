//! The PROXY parser under whatever bytes: it never panics, and keeps the laws that the tests of it check too.

#![forbid(unsafe_code)]
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/tine/tests/proxy/laws.rs"]
mod laws;

fuzz_target!(|bytes: &[u8]| laws::hold(bytes));
