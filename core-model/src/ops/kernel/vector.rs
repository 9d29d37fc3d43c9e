//! Vectors of floats: plain arrays, and the registers of two instruction sets.

#![expect(unsafe_code, reason = "vector instructions on plain addresses")]

/// A vector of floats.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// How many of them the processor works on at a time.
    const REGISTERS: usize;
    /// Vectors of a panel: with 8 or 6 rows of sums they leave registers for the factors.
    const PANEL: usize;
    /// Selects the first lanes.
    type Mask: Copy;
    fn mask(count: usize) -> Self::Mask;
    fn splat(x: f32) -> Self;
    /// Asks for the floats at this address to be brought into the first-level cache.
    unsafe fn prefetch(at: *const f32);
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn load_masked(at: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn store_masked(self, at: *mut f32, mask: Self::Mask);
    fn add(self, other: Self) -> Self;
    /// `self * b + c`
    fn fma(self, b: Self, c: Self) -> Self;
}

impl Vector for [f32; 8] {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const PANEL: usize = 2;
    type Mask = usize;

    #[inline(always)]
    fn mask(count: usize) -> usize {
        count
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: eight floats are valid.
        unsafe { at.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_masked(at: *const f32, mask: usize) -> Self {
        let mut x = [0.0; 8];
        // SAFETY: the first `mask` floats are valid.
        unsafe { std::ptr::copy_nonoverlapping(at, x.as_mut_ptr(), mask) };
        x
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: eight floats are valid.
        unsafe { at.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, at: *mut f32, mask: usize) {
        // SAFETY: the first `mask` floats are valid.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr(), at, mask) };
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| self[i] * b[i] + c[i])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    /// A vector type of one instruction set: its sizes, the intrinsics whose names differ by prefix
    /// only, and those for the first lanes.
    macro_rules! x86_vector {
        (
            $Vector:ty: $lanes:literal lanes, $registers:literal registers, $panel:literal per panel,
            $splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident,
            $Mask:ty: ($count:ident) => $mask:expr,
            load: ($from:ident, $load_mask:ident) => $load_masked:expr,
            store: ($vector:ident, $to:ident, $store_mask:ident) => $store_masked:expr,
        ) => {
            // SAFETY of all methods: they are reached only from the functions with target features
            // in the module above, which run on processors that have the instructions; callers
            // vouch for the addresses.
            impl Vector for $Vector {
                const LANES: usize = $lanes;
                const REGISTERS: usize = $registers;
                const PANEL: usize = $panel;
                type Mask = $Mask;

                #[inline(always)]
                fn mask($count: usize) -> $Mask {
                    $mask
                }

                #[inline(always)]
                fn splat(x: f32) -> Self {
                    // SAFETY: see above.
                    unsafe { $splat(x) }
                }

                #[inline(always)]
                unsafe fn prefetch(at: *const f32) {
                    // SAFETY: see above.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
                }

                #[inline(always)]
                unsafe fn load(at: *const f32) -> Self {
                    // SAFETY: see above.
                    unsafe { $load(at) }
                }

                #[inline(always)]
                unsafe fn load_masked($from: *const f32, $load_mask: $Mask) -> Self {
                    // SAFETY: see above.
                    unsafe { $load_masked }
                }

                #[inline(always)]
                unsafe fn store(self, at: *mut f32) {
                    // SAFETY: see above.
                    unsafe { $store(at, self) }
                }

                #[inline(always)]
                unsafe fn store_masked(self, $to: *mut f32, $store_mask: $Mask) {
                    let $vector = self;
                    // SAFETY: see above.
                    unsafe { $store_masked }
                }

                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $add(self, other) }
                }

                #[inline(always)]
                fn fma(self, b: Self, c: Self) -> Self {
                    // SAFETY: see above.
                    unsafe { $fma(self, b, c) }
                }
            }
        };
    }

    x86_vector! {
        __m512: 16 lanes, 32 registers, 3 per panel,
        _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps,
        __mmask16: (count) => ((1u32 << count) - 1) as __mmask16,
        load: (from, mask) => _mm512_maskz_loadu_ps(mask, from),
        store: (vector, to, mask) => _mm512_mask_storeu_ps(to, mask, vector),
    }

    x86_vector! {
        __m256: 8 lanes, 16 registers, 2 per panel,
        _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps,
        __m256i: (count) => first_lanes(count),
        load: (from, mask) => _mm256_maskload_ps(from, mask),
        store: (vector, to, mask) => _mm256_maskstore_ps(to, mask, vector),
    }

    /// All ones in the first lanes.
    #[inline(always)]
    fn first_lanes(count: usize) -> __m256i {
        // SAFETY: as for the methods above.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
        }
    }
}
