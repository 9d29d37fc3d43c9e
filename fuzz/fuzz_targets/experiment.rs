#![no_main]

use core_fuzz::experiments::experiment;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| experiment(bytes));
