#![no_main]

use core_fuzz::models::config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| config(bytes));
