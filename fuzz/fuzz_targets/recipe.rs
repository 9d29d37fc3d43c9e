#![no_main]

use core_fuzz::experiments::recipe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| recipe(bytes));
