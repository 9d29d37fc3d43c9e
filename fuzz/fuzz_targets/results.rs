#![no_main]

use core_fuzz::experiments::results;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| results(bytes));
