#![no_main]

use core_fuzz::models::safetensors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safetensors(bytes));
