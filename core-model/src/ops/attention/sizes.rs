//! What attention is computed of: its sizes, its results in memory, and tiles of queries.

use burn::backend::flex::FlexTensor;

use crate::ops::gemm::{Right, Start, gemm_by, reads_panels};
use crate::ops::memory::{Output, View, buffer, dims, strided};
use crate::ops::softmax::{softmax_parts, softmax_rows};
use crate::ops::transpose::transpose;

/// Queries whose scores exist at a time.
pub(super) const TILE: usize = 64;

/// Keys of a block where there are more than [`WHOLE`].
pub(super) const BLOCK: usize = 512;

/// Keys that a backward pass takes as a whole: the scores of a tile fit into a second-level cache.
const WHOLE: usize = 1024;

/// The tensor with channels side by side and no other order than that of its sizes.
pub(super) fn adjacent(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    match strides.last() == Some(&1) && strides.iter().all(|&stride| stride >= 0) {
        true => x,
        false => x.to_contiguous(),
    }
}

/// Into `target` the transposed of a matrix of one head.
pub(super) fn turn(x: View, rows: usize, columns: usize, target: &mut [f32]) {
    #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
    // SAFETY: views are of tensors that the callers hold, with these sizes.
    unsafe {
        transpose(x, rows, columns, target);
    }
}

/// The sizes of one attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Channels of a query and of a key.
    pub(super) channels: usize,
    /// Channels of a value.
    pub(super) values: usize,
}

impl Sizes {
    pub(super) fn of(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor) -> Self {
        let ([batch, heads, queries, channels], [_, _, keys, values]) = (dims(q), dims(v));
        assert_eq!(
            dims::<4>(k),
            [batch, heads, keys, channels],
            "attention: keys do not fit queries {:?} and values {:?}",
            dims::<4>(q),
            dims::<4>(v)
        );
        Self {
            batch,
            heads,
            queries,
            keys,
            channels,
            values,
        }
    }

    /// Of probabilities and values; there are no queries.
    pub(super) fn weighing(p: &FlexTensor, v: &FlexTensor) -> Self {
        let ([batch, heads, queries, keys], [.., values]) = (dims(p), dims::<4>(v));
        Self {
            batch,
            heads,
            queries,
            keys,
            channels: 0,
            values,
        }
    }

    /// Heads of all samples.
    pub(super) fn count(&self) -> usize {
        self.batch * self.heads
    }

    pub(super) fn work(&self) -> usize {
        self.count() * self.queries * self.keys * (1 + (self.channels + self.values) / 32)
    }

    /// Whether a backward pass takes the keys in blocks.
    pub(super) fn has_blocks(&self) -> bool {
        self.keys > WHOLE
    }

    /// Floats from one row of a tile's scores to the next: rows that are a multiple of a page apart
    /// would compete for the same places of a cache where columns are read.
    pub(super) fn tile_row(&self) -> usize {
        self.keys + if self.keys >= BLOCK { 16 } else { 0 }
    }

    /// A factor [rows, columns] of products with many queries, in `buffer` where it is not read as it
    /// lies: in panels if it is large, otherwise turned as a whole.
    pub(super) fn factor(self, x: Right, rows: usize, columns: usize, buffer: &mut [f32]) -> Right {
        let is_large = reads_panels([self.queries, columns, rows]);
        match x {
            // SAFETY: views are of tensors that the callers hold, with these sizes.
            #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
            _ if is_large => unsafe { x.packed([rows, columns], buffer) },
            Right::Turned(turned) => {
                turn(turned, columns, rows, buffer);
                Right::Rows(View::rows(buffer, columns))
            }
            read => read,
        }
    }

    /// The matrix of one head.
    pub(super) fn matrix(&self, x: &FlexTensor, head: usize) -> View {
        View::of(x, 2, 3, &[(0, head / self.heads), (1, head % self.heads)])
    }
}

/// A result [batch, heads, rows, columns] that lies in memory as [batch, rows, heads, columns].
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Heads {
    pub(super) fn new(rows: usize, columns: usize, sizes: Sizes) -> Self {
        Self {
            batch: sizes.batch,
            heads: sizes.heads,
            rows,
            columns,
        }
    }

    pub(super) fn buffer(&self) -> Vec<f32> {
        buffer(self.batch * self.heads * self.rows * self.columns)
    }

    /// The matrix of one head.
    pub(super) fn view(&self, output: Output, head: usize) -> View {
        let (batch, head) = (head / self.heads, head % self.heads);
        let row = self.heads * self.columns;
        output.view(batch * self.rows * row + head * self.columns, row, 1)
    }

    pub(super) fn tensor(&self, values: Vec<f32>) -> FlexTensor {
        let row = self.heads * self.columns;
        let strides = [self.rows * row, self.columns, row, 1].map(|stride| stride as isize);
        let shape = [self.batch, self.heads, self.rows, self.columns];
        strided(values, shape, strides.to_vec())
    }
}

/// Some queries of one head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) sizes: Sizes,
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Floats from one row of scores to the next.
    pub(super) row: usize,
}

impl Tile {
    /// All queries, with one row of scores after the other.
    pub(super) fn whole(sizes: Sizes) -> Self {
        Self {
            sizes,
            first: 0,
            rows: sizes.queries,
            row: sizes.keys,
        }
    }

    /// The tiles of the queries from `first` to `end`.
    pub(super) fn between(sizes: Sizes, first: usize, end: usize) -> impl Iterator<Item = Self> {
        let end = end.min(sizes.queries);
        (first..end).step_by(TILE).map(move |first| Self {
            sizes,
            first,
            rows: TILE.min(end - first),
            row: sizes.tile_row(),
        })
    }

    /// Into `p` [rows, keys] the probabilities of these queries; `k` is [channels, keys]. `p` may be
    /// longer than they are. `kept` is empty or takes what [`Self::probabilities_again`] needs.
    pub(super) fn probabilities(
        &self,
        q: View,
        k: Right,
        causal: bool,
        scale: f32,
        p: &mut [f32],
        kept: &mut [f32],
    ) {
        let keys = self.sizes.keys;
        let p = self.scores(q, k, p);
        if causal {
            for (i, row) in p.chunks_exact_mut(self.row).enumerate() {
                let seen = (self.first + i + 1).min(keys);
                row[seen..keys].fill(f32::NEG_INFINITY);
            }
        }
        softmax_rows(p, keys, self.row, scale, kept);
    }

    /// [`Self::probabilities`] of a block of keys, of which this tile's sizes are; nothing is causal.
    pub(super) fn probabilities_again(
        &self,
        q: View,
        k: Right,
        scale: f32,
        p: &mut [f32],
        kept: &[f32],
    ) {
        let p = self.scores(q, k, p);
        softmax_parts(p, self.sizes.keys, self.row, scale, kept);
    }

    /// The products of queries and keys, in the first part of `p`.
    fn scores<'a>(&self, q: View, k: Right, p: &'a mut [f32]) -> &'a mut [f32] {
        let p = &mut p[..self.rows * self.row];
        let scores = Output::new(p).view(0, self.row, 1);
        #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
        // SAFETY: `p` is this task's own; the views are of live tensors with these sizes.
        unsafe {
            let shape = [self.rows, self.sizes.keys, self.sizes.channels];
            gemm_by(shape, scores, Start::Zero, q.from(self.first, 0), k);
        }
        p
    }
}
