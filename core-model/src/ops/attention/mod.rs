//! Scaled dot-product attention (Vaswani et al. 2017, equation 1).
//!
//! Scores exist for a tile of queries at a time only, unless the probabilities are asked for, and in the
//! backward pass for a block of keys where there are many (FlashAttention, Dao et al. 2022). The output
//! lies in memory as [batch, n, heads, d], so that merging the heads afterwards is free.

mod probabilities;
mod recomputed;
mod sizes;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::gemm::{Right, Start, gemm, gemm_by};
use super::memory::{Output, TASKS, View, buffer, run, with_scratch};
use super::softmax::softmax_gradient_rows;
use super::tape::{Gradient, Operand, is_fused, record};
pub use probabilities::attention_with_probabilities;
pub(crate) use recomputed::{attention_with_mean, mean_map};
use sizes::{BLOCK, Heads, Sizes, TILE, Tile, adjacent};

/// Queries for which packing keys and values pays.
const TASK: usize = 512;

/// Scaled dot-product attention on [batch, heads, n, d]; with `causal`, position i sees 0..=i.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, causal: bool, scale: f64) -> Tensor<4> {
    if !(is_fused(&q) && is_fused(&k) && is_fused(&v)) {
        return recomputed::attention(q, k, v, causal, scale);
    }
    let operands = [Operand::from(q), k.into(), v.into()];
    record(operands, |operands| {
        let [q, k, v] = operands.map(adjacent);
        let sizes = Sizes::of(&q, &k, &v);
        let scale = scale as f32;
        let heads = Heads::new(sizes.queries, sizes.values, sizes);
        let mut output = heads.buffer();
        let target = Output::new(&mut output);
        // Two numbers for each row of scores, by which a backward pass in blocks finds its parts again.
        let mut kept = match sizes.has_blocks() && !causal {
            true => buffer(2 * sizes.count() * sizes.queries),
            false => Vec::new(),
        };
        let numbers = Output::new(&mut kept);
        let keeps = !kept.is_empty();
        // Keys and values are packed once for the queries of a task.
        let size = sizes.queries / TASKS.div_ceil(sizes.count().max(1));
        let size = size.next_multiple_of(TILE).max(TASK);
        let tasks = sizes.queries.div_ceil(size);
        run(sizes.count() * tasks, sizes.work(), |i| {
            let (head, first) = (i / tasks, i % tasks * size);
            let [q, k, v] = [&q, &k, &v].map(|x| sizes.matrix(x, head));
            let tiles = Tile::between(sizes, first, first + size);
            let turned = sizes.keys * sizes.channels;
            let tile = TILE.min(sizes.queries) * sizes.tile_row();
            with_scratch(turned + sizes.keys * sizes.values + tile, |scratch| {
                let (turned, scratch) = scratch.split_at_mut(turned);
                let (packed, p) = scratch.split_at_mut(sizes.keys * sizes.values);
                let k = sizes.factor(Right::Turned(k), sizes.channels, sizes.keys, turned);
                let v = sizes.factor(Right::Rows(v), sizes.keys, sizes.values, packed);
                for tile in tiles {
                    #[expect(unsafe_code, reason = "each task writes its own queries")]
                    // SAFETY: these queries of this head belong to this task; inputs are alive.
                    unsafe {
                        let row = 2 * (head * sizes.queries + tile.first);
                        let kept = match keeps {
                            true => numbers.part(row, 2 * tile.rows),
                            false => &mut [],
                        };
                        tile.probabilities(q, k, causal, scale, p, kept);
                        let p = View::rows(p, tile.row);
                        let target = heads.view(target, head).from(tile.first, 0);
                        gemm_by(
                            [tile.rows, sizes.values, sizes.keys],
                            target,
                            Start::Zero,
                            p,
                            v,
                        );
                    }
                }
            });
        });
        let output = heads.tensor(output);
        let gradient = AttentionGradient {
            q,
            k,
            v,
            rows: keeps.then(|| Rows {
                output: output.clone(),
                kept,
            }),
            causal,
            scale,
        };
        (output, gradient)
    })
}

#[derive(Debug, Clone)]
struct AttentionGradient {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    /// Where there are several blocks of keys.
    rows: Option<Rows>,
    causal: bool,
    scale: f32,
}

/// What is known of whole rows of probabilities when a block of them is computed again.
#[derive(Debug, Clone)]
struct Rows {
    /// With the gradient of the output it gives the sum that the gradient of a softmax subtracts.
    output: FlexTensor,
    /// Of [`Tile::probabilities`].
    kept: Vec<f32>,
}

impl Rows {
    /// For every query of a head the product of output and its gradient.
    fn inner(&self, sizes: Sizes, head: usize, g: View) -> Vec<f32> {
        let output = sizes.matrix(&self.output, head);
        let row = |i: usize| {
            #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
            // SAFETY: both are of live tensors with these sizes and adjacent columns.
            let [y, g] = [output, g].map(|matrix| unsafe {
                std::slice::from_raw_parts(matrix.from(i, 0).at, sizes.values)
            });
            y.iter().zip(g).map(|(y, g)| y * g).sum()
        };
        (0..sizes.queries).map(row).collect()
    }
}

impl Gradient<3> for AttentionGradient {
    /// Computes the probabilities again, a tile at a time.
    fn backward(self, grad: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let grad = adjacent(grad);
        let sizes = Sizes::of(&self.q, &self.k, &self.v);
        let shapes = [
            Heads::new(sizes.queries, sizes.channels, sizes),
            Heads::new(sizes.keys, sizes.channels, sizes),
            Heads::new(sizes.keys, sizes.values, sizes),
        ];
        let mut results: [Vec<f32>; 3] = std::array::from_fn(|i| match wanted[i] {
            true => shapes[i].buffer(),
            false => Vec::new(),
        });
        let targets = results.each_mut().map(|result| Output::new(result));
        run(sizes.count(), 3 * sizes.work(), |head| {
            let inputs = [&self.q, &self.k, &self.v, &grad];
            let [q, k, v, g] = inputs.map(|x| sizes.matrix(x, head));
            let views: [View; 3] = std::array::from_fn(|i| shapes[i].view(targets[i], head));
            let rows = self.rows.as_ref().map(|rows| {
                let kept = &rows.kept[2 * head * sizes.queries..][..2 * sizes.queries];
                (kept, rows.inner(sizes, head, g))
            });
            let step = match rows {
                Some(_) => BLOCK,
                None => sizes.keys.max(1),
            };
            for first in (0..sizes.keys).step_by(step) {
                let keys = step.min(sizes.keys - first);
                let block = BlockOfKeys {
                    sizes: Sizes { keys, ..sizes },
                    k: k.from(first, 0),
                    v: v.from(first, 0),
                    is_first: first == 0,
                };
                let views = [views[0], views[1].from(first, 0), views[2].from(first, 0)];
                self.add_block([q, g], block, rows.as_ref(), views, wanted);
            }
        });
        let mut results = results.into_iter().zip(shapes);
        wanted.map(|wanted| {
            let (values, shape) = results.next().expect("three results");
            wanted.then(|| shape.tensor(values))
        })
    }
}

/// Some keys of a head, or all of them, with their values.
struct BlockOfKeys {
    sizes: Sizes,
    k: View,
    v: View,
    is_first: bool,
}

impl AttentionGradient {
    /// Adds a block's share of the gradients of one head; `rows` are the numbers kept of it and the
    /// products of output and gradient.
    fn add_block(
        &self,
        [q, g]: [View; 2],
        block: BlockOfKeys,
        rows: Option<&(&[f32], Vec<f32>)>,
        views: [View; 3],
        wanted: [bool; 3],
    ) {
        let BlockOfKeys { sizes, k, v, .. } = block;
        let tile = TILE.min(sizes.queries) * sizes.tile_row();
        let (keys, values) = (sizes.keys * sizes.channels, sizes.keys * sizes.values);
        with_scratch(2 * tile + 2 * keys + values, |scratch| {
            let (p, scratch) = scratch.split_at_mut(tile);
            let (ds, scratch) = scratch.split_at_mut(tile);
            let (turned_k, scratch) = scratch.split_at_mut(keys);
            let (packed_k, turned_v) = scratch.split_at_mut(keys);
            let factors = Factors {
                turned_k: sizes.factor(Right::Turned(k), sizes.channels, sizes.keys, turned_k),
                turned_v: sizes.factor(Right::Turned(v), sizes.values, sizes.keys, turned_v),
                k: sizes.factor(Right::Rows(k), sizes.keys, sizes.channels, packed_k),
            };
            for tile in Tile::between(sizes, 0, sizes.queries) {
                let queries = tile.first..tile.first + tile.rows;
                let inner = match rows {
                    Some((kept, inner)) => {
                        let kept = &kept[2 * queries.start..2 * queries.end];
                        tile.probabilities_again(q, factors.turned_k, self.scale, p, kept);
                        &inner[queries]
                    }
                    None => {
                        let (k, causal) = (factors.turned_k, self.causal);
                        tile.probabilities(q, k, causal, self.scale, p, &mut []);
                        &[]
                    }
                };
                let gradients = TileGradient {
                    tile,
                    views,
                    wanted,
                    scale: self.scale,
                    is_first_block: block.is_first,
                };
                gradients.add([q, g], factors, p, ds, inner);
            }
        });
    }
}

/// What the products of a backward pass read of one head's keys and values.
#[derive(Debug, Clone, Copy)]
struct Factors {
    /// [channels, keys].
    turned_k: Right,
    /// [values, keys].
    turned_v: Right,
    /// [keys, channels].
    k: Right,
}

/// Where one tile's share of the gradients of q, k and v goes.
struct TileGradient {
    tile: Tile,
    views: [View; 3],
    wanted: [bool; 3],
    scale: f32,
    is_first_block: bool,
}

impl TileGradient {
    /// Adds the share.
    fn add(&self, [q, g]: [View; 2], factors: Factors, p: &[f32], ds: &mut [f32], inner: &[f32]) {
        let Tile {
            sizes,
            first,
            rows,
            row,
        } = self.tile;
        let (p, ds) = (&p[..rows * row], &mut ds[..rows * row]);
        let (q, g) = (q.from(first, 0), g.from(first, 0));
        let probabilities = View::rows(p, row);
        let add = first > 0;
        #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
        // SAFETY: these heads of the gradients belong to this task alone; all inputs are alive.
        unsafe {
            if self.wanted[2] {
                let shape = [sizes.keys, sizes.values, rows];
                gemm(
                    shape,
                    self.views[2],
                    Start::target_if(add),
                    probabilities.transposed(),
                    g,
                );
            }
            if !(self.wanted[0] || self.wanted[1]) {
                return;
            }
            let scores = Output::new(ds).view(0, row, 1);
            let shape = [rows, sizes.keys, sizes.values];
            gemm_by(shape, scores, Start::Zero, g, factors.turned_v);
            softmax_gradient_rows(p, ds, sizes.keys, row, self.scale, inner);
            if self.wanted[0] {
                let shape = [rows, sizes.channels, sizes.keys];
                let target = self.views[0].from(first, 0);
                gemm_by(
                    shape,
                    target,
                    Start::target_if(!self.is_first_block),
                    scores,
                    factors.k,
                );
            }
            if self.wanted[1] {
                let shape = [sizes.keys, sizes.channels, rows];
                gemm(
                    shape,
                    self.views[1],
                    Start::target_if(add),
                    scores.transposed(),
                    q,
                );
            }
        }
    }
}
