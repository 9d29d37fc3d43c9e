//! The number format of weights, in memory and in files.

use burn::tensor::DType;

use crate::error::{Error, Result};
use crate::named::named;

named! {
    "precision",
    /// The number format of weights. Everything is computed in float32: a weight is widened for the
    /// operation that uses it.
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

    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::Float32 => DType::F32,
            Self::Float16 => DType::F16,
            Self::Bfloat16 => DType::BF16,
        }
    }
}
