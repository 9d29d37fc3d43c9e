//! Matrix products of one thread; the operations divide their work among threads themselves.

use super::memory::View;

/// `target = left right`, or `target += left right` with `add`; left is [m, k], right [k, n].
///
/// # Safety
/// The three matrices lie within live buffers, and nothing else reads or writes the target's
/// elements meanwhile.
#[expect(
    unsafe_code,
    reason = "matrices with arbitrary strides in shared buffers"
)]
pub(super) unsafe fn gemm([m, n, k]: [usize; 3], target: View, add: bool, left: View, right: View) {
    // SAFETY: the caller vouches for the matrices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.at.cast_mut(),
            target.column,
            target.row,
            add,
            left.at,
            left.column,
            left.row,
            right.at,
            right.column,
            right.row,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
