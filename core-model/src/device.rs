//! From `cpu`, `wgpu:1` or `cuda:0` to a Burn device that is known to exist.

use burn::tensor::Device;

use crate::error::{Error, Result};

/// The device with this name: `cpu`, `wgpu[:i]` or `cuda[:i]`.
///
/// # Errors
/// [`Error::Device`] when the name is unknown, the backend is not compiled in, or no such adapter
/// is present; found out before any work is done.
pub fn parse_device(name: &str) -> Result<Device> {
    let fail = |reason: String| Error::Device {
        name: name.to_string(),
        reason,
    };
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse::<usize>().map_err(|_| {
                fail(format!(
                    "`{index}` is no device number; write for example `{kind}:0`"
                ))
            })?;
            (kind, Some(index))
        }
        None => (name, None),
    };
    match (kind, index) {
        ("cpu", None) => Ok(Device::flex()),
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
    present(
        burn::tensor::DeviceType::Wgpu,
        index,
        "a Vulkan, Metal or DirectX driver",
    )
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: usize) -> std::result::Result<Device, String> {
    Err("not compiled in; build with `--features wgpu`, or use cpu".into())
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> std::result::Result<Device, String> {
    present(burn::tensor::DeviceType::Cuda, index, "an NVIDIA driver")
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> std::result::Result<Device, String> {
    Err("not compiled in; build with `--features cuda`, or use cpu".into())
}

/// The `index`-th device of a kind. Constructors are lazy and panic at the first tensor, so the
/// adapters are counted first.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn present(
    kind: burn::tensor::DeviceType,
    index: usize,
    driver: &str,
) -> std::result::Result<Device, String> {
    let mut devices: Vec<Device> = Device::enumerate(kind).into_iter().collect();
    let count = devices.len();
    (index < count)
        .then(|| devices.swap_remove(index))
        .ok_or_else(|| format!("not present: {count} found here; it needs {driver}; or use cpu"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::parse_device;

    #[test]
    fn the_cpu_is_always_there() {
        assert!(parse_device("cpu").is_ok());
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
