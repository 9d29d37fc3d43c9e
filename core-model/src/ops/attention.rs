//! Scaled dot-product attention (Vaswani et al. 2017, equation 1).
//!
//! Scores exist for a tile of queries at a time only, unless the probabilities are asked for. The
//! output lies in memory as [batch, n, heads, d], so that merging the heads afterwards is free.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::gemm::{Right, gemm, gemm_by, reads_panels};
use super::memory::{Output, View, buffer, dims, run, strided, tensor, values, with_scratch};
use super::plain;
use super::recomputed_attention;
use super::softmax::{softmax_gradient_rows, softmax_rows};
use super::tape::{Gradient, Operand, is_fused, record};
use super::transpose::transpose;

/// Queries whose scores exist at a time.
const TILE: usize = 64;

/// Queries of a task, for which keys and values are packed once.
const TASK: usize = 512;

/// Scaled dot-product attention on [batch, heads, n, d]; with `causal`, position i sees 0..=i.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, causal: bool, scale: f64) -> Tensor<4> {
    if !(is_fused(&q) && is_fused(&k) && is_fused(&v)) {
        return recomputed_attention::attention(q, k, v, causal, scale);
    }
    let operands = [Operand::from(q), k.into(), v.into()];
    record(operands, |operands| {
        let [q, k, v] = operands.map(adjacent);
        let sizes = Sizes::of(&q, &k, &v);
        let scale = scale as f32;
        let heads = Heads::new(sizes.queries, sizes.values, sizes);
        let mut output = heads.buffer();
        let target = Output::new(&mut output);
        let tasks = sizes.queries.div_ceil(TASK);
        run(sizes.count() * tasks, sizes.work(), |i| {
            let (head, first) = (i / tasks, i % tasks * TASK);
            let [q, k, v] = [&q, &k, &v].map(|x| sizes.matrix(x, head));
            let tiles = Tile::between(sizes, first, first + TASK);
            let turned = sizes.keys * sizes.channels;
            let tile = TILE.min(sizes.queries) * sizes.tile_row();
            with_scratch(turned + sizes.keys * sizes.values + tile, |scratch| {
                let (turned, scratch) = scratch.split_at_mut(turned);
                let (packed, p) = scratch.split_at_mut(sizes.keys * sizes.values);
                let k = sizes.factor(Right::Turned(k), sizes.channels, sizes.keys, turned);
                let v = sizes.factor(Right::Rows(v), sizes.keys, sizes.values, packed);
                for tile in tiles {
                    tile.probabilities(q, k, causal, scale, p);
                    let p = View::rows(p, tile.row);
                    #[expect(unsafe_code, reason = "each task writes its own queries")]
                    // SAFETY: these queries of this head belong to this task; inputs are alive.
                    unsafe {
                        let target = heads.view(target, head).from(tile.first, 0);
                        gemm_by([tile.rows, sizes.values, sizes.keys], target, false, p, v);
                    }
                }
            });
        });
        let gradient = AttentionGradient {
            q,
            k,
            v,
            causal,
            scale,
        };
        (heads.tensor(output), gradient)
    })
}

/// Attention that also gives its probabilities [batch, heads, n, m]; both are differentiable.
pub fn attention_with_probabilities(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
) -> (Tensor<4>, Tensor<4>) {
    if !(is_fused(&q) && is_fused(&k) && is_fused(&v)) {
        return plain::attention_with_probabilities(q, k, v, scale);
    }
    let probabilities: Tensor<4> = record([Operand::from(q), k.into()], |operands| {
        let [q, k] = operands.map(adjacent);
        let sizes = Sizes::of(&q, &k, &k);
        let len = sizes.queries * sizes.keys;
        let mut p = buffer(sizes.count() * len);
        let target = Output::new(&mut p);
        run(sizes.count(), sizes.work(), |head| {
            #[expect(unsafe_code, reason = "each task writes its own head")]
            // SAFETY: the probabilities of this head belong to this task alone.
            let p = unsafe { target.part(head * len, len) };
            let [q, k] = [&q, &k].map(|x| sizes.matrix(x, head));
            with_scratch(sizes.keys * sizes.channels, |turned| {
                let k = sizes.factor(Right::Turned(k), sizes.channels, sizes.keys, turned);
                Tile::whole(sizes).probabilities(q, k, false, scale as f32, p);
            });
        });
        let p = tensor(p, [sizes.batch, sizes.heads, sizes.queries, sizes.keys]);
        let gradient = ProbabilitiesGradient {
            q,
            k,
            p: p.clone(),
            scale: scale as f32,
        };
        (p, gradient)
    });
    let operands = [Operand::from(probabilities.clone()), v.into()];
    let output = record(operands, |[p, v]| {
        let p = p.to_contiguous();
        let sizes = Sizes::weighing(&p, &v);
        let heads = Heads::new(sizes.queries, sizes.values, sizes);
        let mut output = heads.buffer();
        let target = Output::new(&mut output);
        run(sizes.count(), sizes.work(), |head| {
            let [p, v] = [&p, &v].map(|x| sizes.matrix(x, head));
            #[expect(unsafe_code, reason = "each task writes its own head")]
            // SAFETY: this head of the output belongs to this task alone; the inputs are alive.
            unsafe {
                let shape = [sizes.queries, sizes.values, sizes.keys];
                gemm(shape, heads.view(target, head), false, p, v);
            }
        });
        (heads.tensor(output), WeighingGradient { p, v })
    });
    (output, probabilities)
}

/// The tensor with channels side by side and no other order than that of its sizes.
fn adjacent(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    match strides.last() == Some(&1) && strides.iter().all(|&stride| stride >= 0) {
        true => x,
        false => x.to_contiguous(),
    }
}

/// Into `target` the transposed of a matrix of one head.
fn turn(x: View, rows: usize, columns: usize, target: &mut [f32]) {
    #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
    // SAFETY: views are of tensors that the callers hold, with these sizes.
    unsafe {
        transpose(x, rows, columns, target);
    }
}

/// The sizes of one attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    /// Channels of a query and of a key.
    channels: usize,
    /// Channels of a value.
    values: usize,
}

impl Sizes {
    fn of(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor) -> Self {
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
    fn weighing(p: &FlexTensor, v: &FlexTensor) -> Self {
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
    fn count(&self) -> usize {
        self.batch * self.heads
    }

    fn work(&self) -> usize {
        self.count() * self.queries * self.keys * (1 + (self.channels + self.values) / 32)
    }

    /// Floats from one row of a tile's scores to the next: rows that are a multiple of a page apart
    /// would compete for the same places of a cache where columns are read.
    fn tile_row(&self) -> usize {
        self.keys + if self.keys >= 1024 { 16 } else { 0 }
    }

    /// A factor [rows, columns] of products with many queries, in `buffer` where it is not read as it
    /// lies: in panels if it is large, otherwise turned as a whole.
    fn factor(self, x: Right, rows: usize, columns: usize, buffer: &mut [f32]) -> Right {
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
    fn matrix(&self, x: &FlexTensor, head: usize) -> View {
        View::of(x, 2, 3, &[(0, head / self.heads), (1, head % self.heads)])
    }
}

/// A result [batch, heads, rows, columns] that lies in memory as [batch, rows, heads, columns].
#[derive(Debug, Clone, Copy)]
struct Heads {
    batch: usize,
    heads: usize,
    rows: usize,
    columns: usize,
}

impl Heads {
    fn new(rows: usize, columns: usize, sizes: Sizes) -> Self {
        Self {
            batch: sizes.batch,
            heads: sizes.heads,
            rows,
            columns,
        }
    }

    fn buffer(&self) -> Vec<f32> {
        buffer(self.batch * self.heads * self.rows * self.columns)
    }

    /// The matrix of one head.
    fn view(&self, output: Output, head: usize) -> View {
        let (batch, head) = (head / self.heads, head % self.heads);
        let row = self.heads * self.columns;
        output.view(batch * self.rows * row + head * self.columns, row, 1)
    }

    fn tensor(&self, values: Vec<f32>) -> FlexTensor {
        let row = self.heads * self.columns;
        let strides = [self.rows * row, self.columns, row, 1].map(|stride| stride as isize);
        let shape = [self.batch, self.heads, self.rows, self.columns];
        strided(values, shape, strides.to_vec())
    }
}

/// Some queries of one head.
#[derive(Debug, Clone, Copy)]
struct Tile {
    sizes: Sizes,
    first: usize,
    rows: usize,
    /// Floats from one row of scores to the next.
    row: usize,
}

impl Tile {
    /// All queries, with one row of scores after the other.
    fn whole(sizes: Sizes) -> Self {
        Self {
            sizes,
            first: 0,
            rows: sizes.queries,
            row: sizes.keys,
        }
    }

    /// The tiles of the queries from `first` to `end`.
    fn between(sizes: Sizes, first: usize, end: usize) -> impl Iterator<Item = Self> {
        let end = end.min(sizes.queries);
        (first..end).step_by(TILE).map(move |first| Self {
            sizes,
            first,
            rows: TILE.min(end - first),
            row: sizes.tile_row(),
        })
    }

    /// Into `p` [rows, keys] the probabilities of these queries; `k` is [channels, keys]. `p` may be
    /// longer than they are.
    fn probabilities(&self, q: View, k: Right, causal: bool, scale: f32, p: &mut [f32]) {
        let keys = self.sizes.keys;
        let p = &mut p[..self.rows * self.row];
        let scores = Output::new(p).view(0, self.row, 1);
        #[expect(unsafe_code, reason = "matrices of one head with their own strides")]
        // SAFETY: `p` is this task's own; the views are of live tensors with these sizes.
        unsafe {
            let shape = [self.rows, keys, self.sizes.channels];
            gemm_by(shape, scores, false, q.from(self.first, 0), k);
        }
        if causal {
            for (i, row) in p.chunks_exact_mut(self.row).enumerate() {
                let seen = (self.first + i + 1).min(keys);
                row[seen..keys].fill(f32::NEG_INFINITY);
            }
        }
        softmax_rows(p, keys, self.row, scale);
    }
}

#[derive(Debug, Clone)]
struct AttentionGradient {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    causal: bool,
    scale: f32,
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
                    tile.probabilities(q, factors.turned_k, self.causal, self.scale, p);
                    let gradients = TileGradient {
                        tile,
                        views,
                        wanted,
                        scale: self.scale,
                    };
                    gradients.add([q, g], factors, p, ds);
                }
            });
        });
        let mut results = results.into_iter().zip(shapes);
        wanted.map(|wanted| {
            let (values, shape) = results.next().expect("three results");
            wanted.then(|| shape.tensor(values))
        })
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
}

impl TileGradient {
    /// Adds the share.
    fn add(&self, [q, g]: [View; 2], factors: Factors, p: &[f32], ds: &mut [f32]) {
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
                gemm(shape, self.views[2], add, probabilities.transposed(), g);
            }
            if !(self.wanted[0] || self.wanted[1]) {
                return;
            }
            let scores = Output::new(ds).view(0, row, 1);
            let shape = [rows, sizes.keys, sizes.values];
            gemm_by(shape, scores, false, g, factors.turned_v);
            softmax_gradient_rows(p, ds, sizes.keys, row, self.scale);
            if self.wanted[0] {
                let shape = [rows, sizes.channels, sizes.keys];
                let target = self.views[0].from(first, 0);
                gemm_by(shape, target, false, scores, factors.k);
            }
            if self.wanted[1] {
                let shape = [sizes.keys, sizes.channels, rows];
                gemm(shape, self.views[1], add, scores.transposed(), q);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct ProbabilitiesGradient {
    q: FlexTensor,
    k: FlexTensor,
    p: FlexTensor,
    scale: f32,
}

impl Gradient<2> for ProbabilitiesGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let sizes = Sizes::of(&self.q, &self.k, &self.k);
        let grad = grad.to_contiguous();
        let (p, g) = (values(&self.p), values(&grad));
        let shapes = [sizes.queries, sizes.keys].map(|n| Heads::new(n, sizes.channels, sizes));
        let mut results: [Vec<f32>; 2] = std::array::from_fn(|i| match wanted[i] {
            true => shapes[i].buffer(),
            false => Vec::new(),
        });
        let targets = results.each_mut().map(|result| Output::new(result));
        let len = sizes.queries * sizes.keys;
        run(sizes.count(), 2 * sizes.work(), |head| {
            let [q, k] = [&self.q, &self.k].map(|x| sizes.matrix(x, head));
            with_scratch(len, |ds| {
                ds.copy_from_slice(&g[head * len..][..len]);
                let p = &p[head * len..][..len];
                softmax_gradient_rows(p, ds, sizes.keys, sizes.keys, self.scale);
                let ds = View::rows(ds, sizes.keys);
                #[expect(unsafe_code, reason = "each task writes its own head")]
                // SAFETY: this head of the gradients belongs to this task; the inputs are alive.
                unsafe {
                    if wanted[0] {
                        let shape = [sizes.queries, sizes.channels, sizes.keys];
                        gemm(shape, shapes[0].view(targets[0], head), false, ds, k);
                    }
                    if wanted[1] {
                        let shape = [sizes.keys, sizes.channels, sizes.queries];
                        let target = shapes[1].view(targets[1], head);
                        gemm(shape, target, false, ds.transposed(), q);
                    }
                }
            });
        });
        let mut results = results.into_iter().zip(shapes);
        wanted.map(|wanted| {
            let (values, shape) = results.next().expect("two results");
            wanted.then(|| shape.tensor(values))
        })
    }
}

#[derive(Debug, Clone)]
struct WeighingGradient {
    p: FlexTensor,
    v: FlexTensor,
}

impl Gradient<2> for WeighingGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let sizes = Sizes::weighing(&self.p, &self.v);
        let len = sizes.queries * sizes.keys;
        let heads = Heads::new(sizes.keys, sizes.values, sizes);
        let mut dp = buffer(if wanted[0] { sizes.count() * len } else { 0 });
        let mut dv = if wanted[1] {
            heads.buffer()
        } else {
            Vec::new()
        };
        let targets = [Output::new(&mut dp), Output::new(&mut dv)];
        run(sizes.count(), 2 * sizes.work(), |head| {
            let [p, v, g] = [&self.p, &self.v, &grad].map(|x| sizes.matrix(x, head));
            #[expect(unsafe_code, reason = "each task writes its own head")]
            // SAFETY: this head of the gradients belongs to this task; the inputs are alive.
            unsafe {
                if wanted[0] {
                    let target = targets[0].view(head * len, sizes.keys, 1);
                    let shape = [sizes.queries, sizes.keys, sizes.values];
                    with_scratch(sizes.keys * sizes.values, |turned| {
                        turn(v, sizes.keys, sizes.values, turned);
                        gemm(shape, target, false, g, View::rows(turned, sizes.keys));
                    });
                }
                if wanted[1] {
                    let shape = [sizes.keys, sizes.values, sizes.queries];
                    let target = heads.view(targets[1], head);
                    gemm(shape, target, false, p.transposed(), g);
                }
            }
        });
        let shape = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
        [
            wanted[0].then(|| tensor(dp, shape)),
            wanted[1].then(|| heads.tensor(dv)),
        ]
    }
}
