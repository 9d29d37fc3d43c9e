#![no_main]

use core_fuzz::experiments::run_file;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| run_file(bytes));
