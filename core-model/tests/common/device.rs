//! Where the golden tests compute.

use burn::tensor::Device;
use core_model::device::parse_device;

/// The device that `CORE_TEST_DEVICE` names, else the cpu.
pub(crate) fn device() -> Device {
    let name = std::env::var("CORE_TEST_DEVICE");
    parse_device(name.as_deref().unwrap_or("cpu")).unwrap()
}
