#![no_main]

use core_fuzz::models::image;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image(bytes));
