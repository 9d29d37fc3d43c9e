//! How large an image file may be, checked before memory is taken for its pixels.

/// The longest side that is decoded, in pixels.
pub(super) const MAX_SIDE: u32 = 32_768;

/// The most memory that a decoder may take, in bytes.
pub(super) const MAX_MEMORY: u64 = 1 << 30;
