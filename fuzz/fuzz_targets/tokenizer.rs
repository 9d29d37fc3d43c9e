#![no_main]

use core_fuzz::models::tokenizer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tokenizer(bytes));
