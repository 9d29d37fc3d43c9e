//! The font of plots and grids, shipped so that no system font is needed: DejaVu Sans, see
//! assets/DejaVuSans-LICENSE.txt.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use plotters::style::{FontStyle, register_font};

/// The name under which plots ask for it.
pub(super) const FAMILY: &str = "sans-serif";

static BYTES: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Makes the font known to the plotting library, once a process.
pub(super) fn register() -> Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = *DONE.get_or_init(|| register_font(FAMILY, FontStyle::Normal, BYTES).is_ok());
    if done {
        Ok(())
    } else {
        Err(anyhow!("the shipped font cannot be read"))
    }
}
