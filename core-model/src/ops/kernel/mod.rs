//! The innermost loops of matrix products and convolutions: sums of products kept in registers.
//!
//! The left matrix is read one number at a time, the right one in vectors. Neither has to be
//! rearranged: where rows and columns begin is given by strides or tables, so that a convolution
//! is a product with a right matrix that was never unfolded. Rows of the right matrix that lie far
//! apart are gathered, some at a time, where many left rows meet them; sums keep their order.

mod loops;
mod vector;

use super::instruction_set::{Level, level};

/// Rows of the right matrix that are multiplied at a time: with a panel's columns they fill a
/// first-level cache.
pub(super) const DEPTH: usize = 192;

/// Left rows for which copying the right matrix side by side pays.
pub(super) const MANY: usize = 24;

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
    /// One number per row.
    Rows(&'a [f32]),
    /// One number per column, where the columns are the [first](Columns::First) ones.
    Columns(&'a [f32]),
    /// The target's old values, which are the first terms of these sums, and one number per row.
    Resumed(Option<&'a [f32]>),
}

impl Start<'_> {
    /// The target's old values, or nothing.
    pub(super) fn target_if(added_to: bool) -> Self {
        match added_to {
            true => Start::Target,
            false => Start::Zero,
        }
    }

    /// The same for some of the columns.
    pub(super) fn columns(self, first: usize, count: usize) -> Self {
        match self {
            Start::Columns(columns) => Start::Columns(&columns[first..][..count]),
            start => start,
        }
    }
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

/// Vectors of the next panel, of which at most `most` fit, when `left` are still to come: none stands
/// alone, because its loads would take longer than its sums.
#[inline(always)]
fn vectors_of_panel(left: usize, most: usize) -> usize {
    match left {
        1 => 1,
        3 | 5.. if most == 3 => 3,
        _ => 2,
    }
}

/// The panels of `columns` columns: the first column and the width of each.
pub(super) fn panels(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let (lanes, most) = (lanes(), panel_width() / lanes());
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = columns - first;
        let width = lanes * vectors_of_panel(left.div_ceil(lanes), most);
        let panel = (first, width.min(left));
        first += panel.1;
        (left > 0).then_some(panel)
    })
}

#[expect(unsafe_code, reason = "the loops are called by address")]
impl Product<'_> {
    /// Computes the product.
    ///
    /// # Safety
    /// All addresses that the fields span are valid, and nothing else uses the target.
    pub(super) unsafe fn run(&self) {
        if self.rows == 0 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        match level() {
            // SAFETY: `level` found the instructions.
            Level::Avx512 => return unsafe { x86::avx512(self) },
            // SAFETY: `level` found the instructions.
            Level::Avx2 => return unsafe { x86::avx2(self) },
            Level::Any => {}
        }
        // SAFETY: the caller vouches for the addresses.
        unsafe { self.panels::<[f32; 8]>() }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, called where the processor has them"
)]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::Product;

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
