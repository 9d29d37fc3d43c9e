//! The innermost loops of matrix products and convolutions: sums of products kept in registers.
//!
//! The left matrix is read one number at a time, the right one in vectors. Neither has to be
//! rearranged: where rows and columns begin is given by strides or tables, so that a convolution
//! is a product with a right matrix that was never unfolded. Rows of the right matrix that lie far
//! apart are gathered, some at a time, where many left rows meet them; sums keep their order.

use super::simd::{Level, level};

/// Rows of the right matrix that are multiplied at a time: with a panel's columns they fill a
/// first-level cache.
pub(super) const DEPTH: usize = 192;

/// Where the rows of a matrix begin, in floats.
#[derive(Debug, Clone, Copy)]
pub(super) enum Steps<'a> {
    /// At equal distances.
    Stride(usize),
    /// At these places.
    Table(&'a [u32]),
}

impl Steps<'_> {
    #[inline(always)]
    fn at(&self, i: usize) -> usize {
        match self {
            Steps::Stride(stride) => i * stride,
            Steps::Table(table) => table[i] as usize,
        }
    }
}

/// Which columns of the right matrix and of the target there are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Columns<'a> {
    /// The first ones.
    First(usize),
    /// Vectors of [`lanes`] columns that begin at these places of right matrix and target.
    Vectors { right: &'a [u32], target: &'a [u32] },
}

/// What the products are added to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// The target's old values.
    Target,
    /// One number a row.
    Rows(&'a [f32]),
    /// The target's old values, which are the first terms of these sums, and one number a row.
    Resumed(Option<&'a [f32]>),
}

/// A product of two matrices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) left: *const f32,
    pub(super) left_rows: Steps<'a>,
    pub(super) left_column: usize,
    pub(super) right: *const f32,
    pub(super) right_rows: Steps<'a>,
    pub(super) columns: Columns<'a>,
    pub(super) target: *mut f32,
    pub(super) target_row: usize,
    pub(super) start: Start<'a>,
}

/// Floats of a vector on this processor.
pub(super) fn lanes() -> usize {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 16,
        _ => 8,
    }
}

/// Columns of a panel, that is of the vectors whose sums are in registers at a time.
pub(super) fn panel_width() -> usize {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 3 * 16,
        _ => 2 * 8,
    }
}

/// A vector of floats.
#[expect(unsafe_code, reason = "loads and stores go to plain addresses")]
trait Vector: Copy {
    const LANES: usize;
    /// How many of them the processor works on at a time.
    const REGISTERS: usize;
    /// Vectors of a panel: with 8 or 6 rows of sums they leave registers for the factors.
    const PANEL: usize;
    /// Selects the first lanes.
    type Mask: Copy;
    fn mask(count: usize) -> Self::Mask;
    fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn load_masked(at: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn store_masked(self, at: *mut f32, mask: Self::Mask);
    fn add(self, other: Self) -> Self;
    /// `self * b + c`
    fn fma(self, b: Self, c: Self) -> Self;
}

#[expect(unsafe_code, reason = "vector instructions and strided memory")]
mod loops {
    use std::mem::MaybeUninit;

    use super::{Columns, DEPTH, Product, Start, Steps, Vector};

    /// Left rows for which gathering the right matrix pays.
    const MANY: usize = 24;

    impl Product<'_> {
        /// Computes the product.
        ///
        /// # Safety
        /// All addresses that the fields span are valid, and nothing else uses the target.
        pub(in crate::ops) unsafe fn run(&self) {
            if self.rows == 0 {
                return;
            }
            #[cfg(target_arch = "x86_64")]
            {
                use super::{Level, level, x86};
                match level() {
                    // SAFETY: `level` found the instructions.
                    Level::Avx512 => return unsafe { x86::avx512(self) },
                    // SAFETY: `level` found the instructions.
                    Level::Avx2 => return unsafe { x86::avx2(self) },
                    Level::Any => {}
                }
            }
            // SAFETY: the caller vouches for the addresses.
            unsafe { self.panels::<[f32; 8]>() }
        }

        /// Panels of vectors, each for all rows; where the right matrix is gathered, [`DEPTH`] of its
        /// rows at a time, so that the left numbers that they meet stay in a cache.
        #[inline(always)]
        pub(super) unsafe fn panels<L: Vector>(&self) {
            if !self.is_to_be_gathered(L::PANEL * L::LANES) {
                // SAFETY: passed on.
                return unsafe { self.all_columns::<L, false>() };
            }
            for first in (0..self.depth).step_by(DEPTH) {
                // SAFETY: passed on.
                unsafe { self.part(first).all_columns::<L, true>() };
            }
        }

        /// Whether the right matrix is read often and its rows are farther apart than `near`.
        fn is_to_be_gathered(&self, near: usize) -> bool {
            let is_far = match self.right_rows {
                Steps::Stride(stride) => stride > near,
                Steps::Table(_) => true,
            };
            is_far && self.rows >= MANY && matches!(self.start, Start::Zero | Start::Rows(_))
        }

        /// The terms of [`DEPTH`] right rows from `first`.
        fn part(&self, first: usize) -> Self {
            let depth = DEPTH.min(self.depth - first);
            let (right, right_rows) = match self.right_rows {
                Steps::Stride(stride) => (
                    self.right.wrapping_add(first * stride),
                    Steps::Stride(stride),
                ),
                Steps::Table(table) => (self.right, Steps::Table(&table[first..])),
            };
            let is_last = first + depth == self.depth;
            let start = match (first, is_last, self.start) {
                (0, true, start) => start,
                (0, false, _) => Start::Zero,
                (_, true, Start::Rows(rows)) => Start::Resumed(Some(rows)),
                _ => Start::Resumed(None),
            };
            Self {
                depth,
                left: self.left.wrapping_add(first * self.left_column),
                right,
                right_rows,
                start,
                ..*self
            }
        }

        #[inline(always)]
        unsafe fn all_columns<L: Vector, const GATHER: bool>(&self) {
            let count = match self.columns {
                Columns::First(count) => count.div_ceil(L::LANES),
                Columns::Vectors { right, .. } => right.len(),
            };
            let mut first = 0;
            while first < count {
                // SAFETY: passed on.
                first += unsafe {
                    match count - first {
                        1 => self.blocks::<L, 1, GATHER>(first),
                        3 | 5.. if L::PANEL == 3 => self.blocks::<L, 3, GATHER>(first),
                        _ => self.blocks::<L, 2, GATHER>(first),
                    }
                };
            }
        }

        /// All rows of the `V` vectors from `first`; returns `V`.
        #[inline(always)]
        unsafe fn blocks<L: Vector, const V: usize, const GATHER: bool>(
            &self,
            first: usize,
        ) -> usize {
            let mut panel = Panel {
                right: [self.right; V],
                target: [0; V],
                masks: [L::mask(L::LANES); V],
            };
            for v in 0..V {
                let (right, target) = match self.columns {
                    Columns::First(count) => {
                        let start = (first + v) * L::LANES;
                        panel.masks[v] = L::mask((count - start).min(L::LANES));
                        (start, start)
                    }
                    Columns::Vectors { right, target } => {
                        (right[first + v] as usize, target[first + v] as usize)
                    }
                };
                panel.right[v] = self.right.wrapping_add(right);
                panel.target[v] = target;
            }
            let whole = match self.columns {
                Columns::First(count) => (first + V) * L::LANES <= count,
                Columns::Vectors { .. } => true,
            };
            // SAFETY: passed on.
            unsafe {
                match (GATHER, whole) {
                    (true, true) => self.gathered::<L, V, true>(&mut panel),
                    (true, false) => self.gathered::<L, V, false>(&mut panel),
                    (false, true) => self.all_rows::<L, V, true>(&panel),
                    (false, false) => self.all_rows::<L, V, false>(&panel),
                }
            }
            V
        }

        /// All rows, with the vectors of at most [`DEPTH`] right rows copied side by side.
        #[inline(always)]
        unsafe fn gathered<L: Vector, const V: usize, const WHOLE: bool>(
            &self,
            panel: &mut Panel<L, V>,
        ) {
            #[repr(align(64))]
            struct Side([MaybeUninit<f32>; 48 * DEPTH]);
            assert!(self.depth <= DEPTH && V * L::LANES <= 48);
            let mut copy = Side([MaybeUninit::uninit(); 48 * DEPTH]);
            let copy = copy.0.as_mut_ptr().cast::<f32>();
            for k in 0..self.depth {
                let offset = self.right_rows.at(k);
                for (v, source) in panel.right.iter().enumerate() {
                    // SAFETY: an address of the right matrix, and there is place for all rows.
                    unsafe {
                        let vector = panel.load::<WHOLE>(v, source.add(offset));
                        vector.store(copy.add((k * V + v) * L::LANES));
                    }
                }
            }
            for (v, right) in panel.right.iter_mut().enumerate() {
                *right = copy.wrapping_add(v * L::LANES);
            }
            let near = Product {
                right_rows: Steps::Stride(V * L::LANES),
                ..*self
            };
            // SAFETY: the caller's matrices and the copy just written.
            unsafe { near.all_rows::<L, V, WHOLE>(panel) };
        }

        /// As many rows at a time as have their sums in registers, beside the right vectors and
        /// one number of the left matrix.
        #[inline(always)]
        unsafe fn all_rows<L: Vector, const V: usize, const WHOLE: bool>(
            &self,
            panel: &Panel<L, V>,
        ) {
            let mut row = 0;
            // SAFETY: passed on.
            unsafe {
                if 8 * V + V + 2 <= L::REGISTERS {
                    while row + 8 <= self.rows {
                        self.steps::<L, 8, V, WHOLE>(row, panel);
                        row += 8;
                    }
                } else {
                    while row + 6 <= self.rows {
                        self.steps::<L, 6, V, WHOLE>(row, panel);
                        row += 6;
                    }
                }
                while row + 4 <= self.rows {
                    self.steps::<L, 4, V, WHOLE>(row, panel);
                    row += 4;
                }
                while row + 2 <= self.rows {
                    self.steps::<L, 2, V, WHOLE>(row, panel);
                    row += 2;
                }
                while row < self.rows {
                    self.steps::<L, 1, V, WHOLE>(row, panel);
                    row += 1;
                }
            }
        }

        #[inline(always)]
        unsafe fn steps<L: Vector, const R: usize, const V: usize, const WHOLE: bool>(
            &self,
            row: usize,
            panel: &Panel<L, V>,
        ) {
            // SAFETY: passed on; tables have an entry for each row.
            unsafe {
                match self.right_rows {
                    Steps::Stride(stride) => {
                        self.tile::<L, R, V, WHOLE>(row, panel, |k| k * stride)
                    }
                    Steps::Table(table) => {
                        assert!(table.len() >= self.depth);
                        let step = |k| *table.get_unchecked(k) as usize;
                        self.tile::<L, R, V, WHOLE>(row, panel, step);
                    }
                }
            }
        }

        /// `R` rows of `V` vectors, their sums in registers.
        #[inline(always)]
        unsafe fn tile<L: Vector, const R: usize, const V: usize, const WHOLE: bool>(
            &self,
            row: usize,
            panel: &Panel<L, V>,
            step: impl Fn(usize) -> usize,
        ) {
            let mut left = [self.left; R];
            for (r, left) in left.iter_mut().enumerate() {
                *left = left.wrapping_add(self.left_rows.at(row + r));
            }
            let mut sums = [[L::splat(0.0); V]; R];
            // SAFETY: the caller vouches for all addresses.
            unsafe {
                if let Start::Resumed(_) = self.start {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let target = self.target.add((row + r) * self.target_row);
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = panel.load::<WHOLE>(v, target.add(panel.target[v]));
                        }
                    }
                }
                for k in 0..self.depth {
                    let offset = step(k);
                    let mut right = [L::splat(0.0); V];
                    for (v, right) in right.iter_mut().enumerate() {
                        *right = panel.load::<WHOLE>(v, panel.right[v].add(offset));
                    }
                    for r in 0..R {
                        let x = L::splat(*left[r].add(k * self.left_column));
                        for (sum, &right) in sums[r].iter_mut().zip(&right) {
                            *sum = x.fma(right, *sum);
                        }
                    }
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    let target = self.target.add((row + r) * self.target_row);
                    for (v, sum) in sums.into_iter().enumerate() {
                        let at = target.add(panel.target[v]);
                        let sum = match self.start {
                            Start::Zero | Start::Resumed(None) => sum,
                            Start::Target => panel.load::<WHOLE>(v, at).add(sum),
                            Start::Rows(rows) | Start::Resumed(Some(rows)) => {
                                L::splat(rows[row + r]).add(sum)
                            }
                        };
                        match WHOLE {
                            true => sum.store(at),
                            false => sum.store_masked(at, panel.masks[v]),
                        }
                    }
                }
            }
        }
    }

    /// Vectors side by side.
    struct Panel<L: Vector, const V: usize> {
        right: [*const f32; V],
        target: [usize; V],
        masks: [L::Mask; V],
    }

    impl<L: Vector, const V: usize> Panel<L, V> {
        /// Loads vector `v`, in one piece if it is known to be whole.
        #[inline(always)]
        unsafe fn load<const WHOLE: bool>(&self, v: usize, at: *const f32) -> L {
            // SAFETY: passed on.
            unsafe {
                match WHOLE {
                    true => L::load(at),
                    false => L::load_masked(at, self.masks[v]),
                }
            }
        }
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
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, called where the processor has them"
)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Product, Vector};

    /// # Safety
    /// As [`Product::run`], on a processor with these instructions.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    pub(super) unsafe fn avx512(product: &Product) {
        // SAFETY: the caller vouches for the addresses.
        unsafe { product.panels::<__m512>() }
    }

    /// # Safety
    /// As [`Product::run`], on a processor with these instructions.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(product: &Product) {
        // SAFETY: the caller vouches for the addresses.
        unsafe { product.panels::<__m256>() }
    }

    // SAFETY of all methods below: they are reached from the two functions above only, which run
    // on processors that have the instructions; addresses are vouched for by the callers.

    impl Vector for __m512 {
        const LANES: usize = 16;
        const REGISTERS: usize = 32;
        const PANEL: usize = 3;
        type Mask = __mmask16;

        #[inline(always)]
        fn mask(count: usize) -> __mmask16 {
            ((1u32 << count) - 1) as __mmask16
        }

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn load_masked(at: *const f32, mask: __mmask16) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_maskz_loadu_ps(mask, at) }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(at, self) }
        }

        #[inline(always)]
        unsafe fn store_masked(self, at: *mut f32, mask: __mmask16) {
            // SAFETY: see above.
            unsafe { _mm512_mask_storeu_ps(at, mask, self) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;
        const REGISTERS: usize = 16;
        const PANEL: usize = 2;
        type Mask = __m256i;

        #[inline(always)]
        fn mask(count: usize) -> __m256i {
            // SAFETY: see above.
            unsafe {
                let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
            }
        }

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn load_masked(at: *const f32, mask: __m256i) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_maskload_ps(at, mask) }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(at, self) }
        }

        #[inline(always)]
        unsafe fn store_masked(self, at: *mut f32, mask: __m256i) {
            // SAFETY: see above.
            unsafe { _mm256_maskstore_ps(at, mask, self) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The product of small integers, exact in float32.
    #[test]
    #[expect(unsafe_code, reason = "the loops are called by address")]
    fn every_instruction_set_gives_the_exact_product_of_integers() {
        // The last ones gather the right matrix, in one part and in several.
        for (rows, depth, columns) in [
            (1, 1, 1),
            (13, 7, 37),
            (8, 20, 48),
            (5, 9, 64),
            (9, 3, 17),
            (31, 20, 64),
            (31, 400, 101),
        ] {
            let left: Vec<f32> = (0..rows * depth).map(|i| (i % 7) as f32 - 3.0).collect();
            let right: Vec<f32> = (0..depth * columns).map(|i| (i % 5) as f32 - 2.0).collect();
            let bias: Vec<f32> = (0..rows).map(|i| i as f32).collect();
            let exact: Vec<f32> = (0..rows * columns)
                .map(|i| {
                    let (r, c) = (i / columns, i % columns);
                    let term = |k| left[r * depth + k] * right[k * columns + c];
                    bias[r] + (0..depth).map(term).sum::<f32>()
                })
                .collect();
            let mut target = vec![0.0; rows * columns];
            let product = Product {
                rows,
                depth,
                left: left.as_ptr(),
                left_rows: Steps::Stride(depth),
                left_column: 1,
                right: right.as_ptr(),
                right_rows: Steps::Stride(columns),
                columns: Columns::First(columns),
                target: target.as_mut_ptr(),
                target_row: columns,
                start: Start::Rows(&bias),
            };
            // SAFETY: the sizes are those of the three vectors.
            unsafe { product.run() };
            assert_eq!(target, exact);
            target.fill(0.0);
            // SAFETY: as above; this one needs no instructions.
            unsafe { product.panels::<[f32; 8]>() };
            assert_eq!(target, exact);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                target.fill(0.0);
                // SAFETY: as above, and the instructions are there.
                unsafe { x86::avx2(&product) };
                assert_eq!(target, exact);
            }
        }
    }
}
