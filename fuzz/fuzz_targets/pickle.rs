#![no_main]

use core_fuzz::models::pickle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pickle(bytes));
