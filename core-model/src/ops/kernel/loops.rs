//! A product in panels and tiles, for any vector type.

#![expect(unsafe_code, reason = "vector instructions and strided memory")]

use std::mem::MaybeUninit;

use super::vector::Vector;
use super::{Columns, DEPTH, MANY, Product, Start, Steps, vectors_of_panel};

impl Product<'_> {
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
                match vectors_of_panel(count - first, L::PANEL) {
                    1 => self.blocks::<L, 1, GATHER>(first),
                    3 => self.blocks::<L, 3, GATHER>(first),
                    _ => self.blocks::<L, 2, GATHER>(first),
                }
            };
        }
    }

    /// All rows of the `V` vectors from `first`; returns `V`.
    #[inline(always)]
    unsafe fn blocks<L: Vector, const V: usize, const GATHER: bool>(&self, first: usize) -> usize {
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
    unsafe fn all_rows<L: Vector, const V: usize, const WHOLE: bool>(&self, panel: &Panel<L, V>) {
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
                Steps::Stride(stride) => self.tile::<L, R, V, WHOLE>(row, panel, |k| k * stride),
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
            // What the sums are added to comes into the cache while they are computed.
            for r in 0..R {
                for v in 0..V {
                    L::prefetch(self.target_of(row + r, panel, v));
                }
            }
            if let Start::Resumed(_) = self.start {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = panel.load::<WHOLE>(v, self.target_of(row + r, panel, v));
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
            match self.start {
                Start::Zero | Start::Resumed(None) => {
                    self.finish::<L, R, V, WHOLE>(row, panel, sums, |sum, _, _| sum);
                }
                Start::Target => {
                    let old = |r, v| panel.load::<WHOLE>(v, self.target_of(row + r, panel, v));
                    let add = |sum: L, r, v| old(r, v).add(sum);
                    self.finish::<L, R, V, WHOLE>(row, panel, sums, add);
                }
                Start::Rows(rows) | Start::Resumed(Some(rows)) => {
                    let add = |sum: L, r: usize, _| L::splat(rows[row + r]).add(sum);
                    self.finish::<L, R, V, WHOLE>(row, panel, sums, add);
                }
                Start::Columns(columns) => {
                    let of = |v| panel.load::<WHOLE>(v, columns.as_ptr().add(panel.target[v]));
                    let add = |sum: L, _, v| of(v).add(sum);
                    self.finish::<L, R, V, WHOLE>(row, panel, sums, add);
                }
            }
        }
    }

    /// Where a row's vector `v` of the target is.
    #[inline(always)]
    unsafe fn target_of<L: Vector, const V: usize>(
        &self,
        row: usize,
        panel: &Panel<L, V>,
        v: usize,
    ) -> *mut f32 {
        // SAFETY: the caller vouches for all addresses.
        unsafe { self.target.add(row * self.target_row + panel.target[v]) }
    }

    /// Stores what `last` makes of the sums of a tile, given the row within it and the vector.
    #[inline(always)]
    unsafe fn finish<L: Vector, const R: usize, const V: usize, const WHOLE: bool>(
        &self,
        row: usize,
        panel: &Panel<L, V>,
        sums: [[L; V]; R],
        last: impl Fn(L, usize, usize) -> L,
    ) {
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: the caller vouches for all addresses.
                unsafe {
                    let at = self.target_of(row + r, panel, v);
                    let sum = last(sum, r, v);
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
