#![no_main]

use core_fuzz::experiments::prompts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| prompts(bytes));
