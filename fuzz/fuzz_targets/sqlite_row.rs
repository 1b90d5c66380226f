#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ponos_fuzz::sqlite_row::check(data));
