#![no_main]

use core_fuzz::models::text;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| text(bytes));
