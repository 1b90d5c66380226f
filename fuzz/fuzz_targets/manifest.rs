#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ponos_fuzz::manifest::check(data));
