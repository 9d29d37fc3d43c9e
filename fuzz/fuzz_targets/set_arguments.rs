#![no_main]

use core_fuzz::experiments::set_arguments;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| set_arguments(bytes));
