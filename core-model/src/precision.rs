//! The number format of weights, in memory and in files, and of what GPUs compute with them.

use burn::tensor::{DType, Device};

use crate::device::is_cpu;
use crate::error::{Error, Result};
use crate::named::named;

named! {
    "precision",
    /// The number format of frozen weights. The cpu computes everything in float32: a weight is widened
    /// for the operation that uses it. GPUs compute products and convolutions in this format, which add
    /// up in float32, and everything else in float32; so they do convolutions on wgpu, whose kernel
    /// would add up in float16.
    #[derive(Default)]
    pub enum Precision {
        /// 4 bytes per weight.
        #[default]
        Float32 = "float32",
        /// 2 bytes per weight, the format of most files.
        Float16 = "float16",
        /// 2 bytes per weight with the range of float32; not on wgpu.
        Bfloat16 = "bfloat16",
    }
}

impl Precision {
    /// Refuses weights in memory that a device computes wrongly.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming both.
    pub fn check(self, device: &str) -> Result<()> {
        if self == Self::Bfloat16 && device.starts_with("wgpu") {
            return Err(Error::Invalid(format!(
                "precision is bfloat16 and the device {device}, whose backend reads such numbers \
                 wrongly; take float16 or float32"
            )));
        }
        Ok(())
    }

    /// The format in which products and convolutions of such a network are computed on a device.
    pub fn computed_on(self, device: &Device) -> DType {
        match is_cpu(device) {
            true => DType::F32,
            false => self.dtype(),
        }
    }

    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::Float32 => DType::F32,
            Self::Float16 => DType::F16,
            Self::Bfloat16 => DType::BF16,
        }
    }
}
