//! `FUZZ_TARGET=NAME fuzz-engine [libFuzzer options] CORPUS`.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = fuzz::TARGETS.iter().find(|(n, _)| *n == name);
    found.map_or_else(|| panic!("FUZZ_TARGET is none of {:?}", fuzz::TARGETS.map(|t| t.0)), |t| t.1)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
