#![no_main]

use core_fuzz::experiments::protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol(bytes));
