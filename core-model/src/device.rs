//! From `cpu`, `wgpu:1` or `cuda:0` to a Burn device that is known to exist.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::tensor::DeviceType;
use burn::tensor::{Device, Tensor};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::ops;
pub use crate::ops::is_cpu;
use crate::params::to_vec;
use crate::rng::randn;

/// The device with this name: `cpu`, `wgpu[:i]` or `cuda[:i]`.
///
/// # Errors
/// [`Error::Device`] when the name is unknown, the backend is not compiled in, no such adapter is
/// present, or `CORE_MAX_CPU_ISA` names no instruction set; found out before any work is done.
pub fn parse_device(name: &str) -> Result<Device> {
    let fail = |reason: String| Error::Device {
        name: name.to_string(),
        reason,
    };
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse::<usize>().map_err(|_| {
                fail(format!(
                    "`{index}` is not a device number; write for example `{kind}:0`"
                ))
            })?;
            (kind, Some(index))
        }
        None => (name, None),
    };
    match (kind, index) {
        ("cpu", None) => {
            ops::check_instruction_set().map_err(fail)?;
            Ok(Device::flex())
        }
        ("cpu", Some(_)) => Err(fail("there is one cpu device; write `cpu`".into())),
        ("wgpu", index) => wgpu(index.unwrap_or(0)).map_err(fail),
        ("cuda", index) => cuda(index.unwrap_or(0)).map_err(fail),
        _ => Err(fail(
            "unknown; the devices are cpu, wgpu[:i] and cuda[:i]".into(),
        )),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu(index: usize) -> std::result::Result<Device, String> {
    present(DeviceType::Wgpu, index, "a Vulkan, Metal or DirectX driver")
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: usize) -> std::result::Result<Device, String> {
    Err("not compiled in; build with `--features wgpu`, or use cpu".into())
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> std::result::Result<Device, String> {
    present(DeviceType::Cuda, index, "an NVIDIA driver")
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> std::result::Result<Device, String> {
    Err("not compiled in; build with `--features cuda`, or use cpu".into())
}

/// A GPU, as its runtime and its driver describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// What the adapter calls itself.
    pub adapter: String,
    /// What kernels are compiled for, as `ptx_sm90`.
    pub target: String,
    /// The version of the driver, where the system tells it: that of NVIDIA's kernel module on Linux.
    pub driver: Option<String>,
}

impl Gpu {
    /// What a device is; none for the cpu.
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    pub fn of(device: &Device) -> Option<Self> {
        let identity = device.identity()?;
        let driver = identity.name.contains("NVIDIA").then(|| {
            let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
            nvidia_version(&text)
        });
        Some(Self {
            adapter: identity.name,
            target: identity.fingerprint,
            driver: driver.flatten(),
        })
    }

    /// None: this program was built for the cpu alone.
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    pub fn of(_: &Device) -> Option<Self> {
        None
    }
}

/// The version in the text of NVIDIA's kernel module: the first word of its first line that is numbers with
/// dots between.
#[cfg(any(feature = "wgpu", feature = "cuda", test))]
fn nvidia_version(text: &str) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    let mut words = text.lines().next()?.split_whitespace();
    words.find(is_version).map(str::to_string)
}

/// A device of this machine.
#[derive(Debug, Clone)]
pub struct Present {
    /// What `--device` calls it.
    pub name: String,
    /// What it calls itself.
    pub adapter: String,
    /// The device.
    pub device: Device,
}

/// All devices of this machine that this program was built for; the cpu first.
pub fn present_devices() -> Vec<Present> {
    let cpu = Present {
        name: "cpu".into(),
        adapter: std::env::consts::ARCH.into(),
        device: Device::flex(),
    };
    let all = std::iter::once(cpu);
    #[cfg(feature = "wgpu")]
    let all = all.chain(adapters("wgpu", DeviceType::Wgpu));
    #[cfg(feature = "cuda")]
    let all = all.chain(adapters("cuda", DeviceType::Cuda));
    all.collect()
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn adapters(kind: &str, device_type: DeviceType) -> impl Iterator<Item = Present> {
    let devices = Device::enumerate(device_type).into_iter().enumerate();
    devices.map(move |(index, device)| Present {
        name: format!("{kind}:{index}"),
        adapter: device
            .identity()
            .map_or("unnamed adapter".into(), |identity| identity.name),
        device,
    })
}

/// The largest relative difference between what `device` and the cpu make of one small network
/// with its gradients: convolution, group norm, attention, softmax, linear maps.
///
/// # Errors
/// [`Error::Device`] when the device fails or gives values that are NaN or infinite.
pub fn difference_from_cpu(name: &str, device: &Device) -> Result<f32> {
    let fail = |reason: String| Error::Device {
        name: name.to_string(),
        reason,
    };
    let expected = compute(&Device::flex());
    // Drivers fail with a panic at the first tensor.
    let found = catch_unwind(AssertUnwindSafe(|| compute(device)))
        .map_err(|_| fail("fails at its first computation; its driver may be broken".into()))?;
    let largest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let differences = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    // A NaN must not vanish in a maximum.
    let worst = differences.fold(0.0_f32, |m, x| if x > m || x.is_nan() { x } else { m });
    match worst.is_finite() {
        true => Ok(worst / largest),
        false => Err(fail("computes values that are NaN or infinite".into())),
    }
}

/// The values and gradients of [`difference_from_cpu`].
fn compute(device: &Device) -> Vec<f32> {
    let weight = |seed: u64, shape| randn::<4>(shape, seed, "device", 0, device);
    let x = weight(0, [2, 16, 8, 8]).autodiff().require_grad();
    let h = ops::conv2d(x.clone(), weight(1, [32, 16, 3, 3]), None, 1, [1; 4]);
    let one = Tensor::<1>::ones([32], device);
    let h = ops::group_norm_silu(h, 8, one.clone(), one.clone() * 0.5, 1e-5);
    let tokens = h.reshape([2, 32, 64]).swap_dims(1, 2);
    let project = |seed| {
        let weight = weight(seed, [32, 32, 1, 1]).reshape([32, 32]);
        let y = ops::linear(tokens.clone(), weight / 6.0, Some(one.clone()));
        y.reshape([2, 64, 4, 8]).swap_dims(1, 2)
    };
    let y = ops::attention(project(2), project(3), project(4), false, 0.35);
    let gradients = (y.clone() * y.clone()).mean().backward();
    let gradient = x.grad(&gradients).map(to_vec).unwrap_or_default();
    [to_vec(y.inner()), gradient].concat()
}

/// The `index`-th device of a kind. Constructors are lazy and panic at the first tensor, so the
/// adapters are counted first.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn present(kind: DeviceType, index: usize, driver: &str) -> std::result::Result<Device, String> {
    let mut devices: Vec<Device> = Device::enumerate(kind).into_iter().collect();
    let count = devices.len();
    (index < count)
        .then(|| devices.swap_remove(index))
        .ok_or_else(|| format!("not present: {count} found here; it needs {driver}; or use cpu"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Gpu, difference_from_cpu, nvidia_version, parse_device, present_devices};

    #[test]
    fn the_cpu_is_always_there() {
        assert!(parse_device("cpu").is_ok());
    }

    #[test]
    fn the_cpu_is_listed_first_and_computes_as_itself() {
        let first = present_devices().swap_remove(0);
        assert_eq!(first.name, "cpu");
        assert_eq!(difference_from_cpu("cpu", &first.device).unwrap(), 0.0);
    }

    #[test]
    fn the_cpu_is_no_gpu() {
        assert_eq!(Gpu::of(&parse_device("cpu").unwrap()), None);
    }

    #[test]
    fn the_version_of_a_driver_stands_in_the_first_line() {
        for (text, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 24 22:58:10 UTC 2024\n\
                 GCC version:  gcc version 11.4.0\n",
                Some("535.161.08"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86  Release Build\n",
                Some("570.86"),
            ),
            ("NVRM version: unknown\nGCC version: 11.4.0\n", None),
            ("", None),
        ] {
            assert_eq!(nvidia_version(text).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn unknown_devices_are_refused_with_the_valid_names() {
        for name in ["gpu", "cpu:1", "cuda:x", ""] {
            let message = parse_device(name).unwrap_err().to_string();
            assert!(
                message.contains("cpu") || message.contains("cuda:0"),
                "{message}"
            );
        }
    }
}
