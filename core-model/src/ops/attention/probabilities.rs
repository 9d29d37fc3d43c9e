//! Attention whose probabilities are wanted too: they exist as a whole.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::sizes::{Heads, Sizes, Tile, adjacent, turn};
use crate::ops::gemm::{Right, Start, gemm};
use crate::ops::memory::{Output, View, buffer, run, tensor, values, with_scratch};
use crate::ops::plain;
use crate::ops::softmax::softmax_gradient_rows;
use crate::ops::tape::{Gradient, Operand, is_fused, record};

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
                Tile::whole(sizes).probabilities(q, k, false, scale as f32, p, &mut []);
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
                gemm(shape, heads.view(target, head), Start::Zero, p, v);
            }
        });
        (heads.tensor(output), WeighingGradient { p, v })
    });
    (output, probabilities)
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
                softmax_gradient_rows(p, ds, sizes.keys, sizes.keys, self.scale, &[]);
                let ds = View::rows(ds, sizes.keys);
                #[expect(unsafe_code, reason = "each task writes its own head")]
                // SAFETY: this head of the gradients belongs to this task; the inputs are alive.
                unsafe {
                    if wanted[0] {
                        let shape = [sizes.queries, sizes.channels, sizes.keys];
                        gemm(shape, shapes[0].view(targets[0], head), Start::Zero, ds, k);
                    }
                    if wanted[1] {
                        let shape = [sizes.keys, sizes.channels, sizes.queries];
                        let target = shapes[1].view(targets[1], head);
                        gemm(shape, target, Start::Zero, ds.transposed(), q);
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
                        gemm(
                            shape,
                            target,
                            Start::Zero,
                            g,
                            View::rows(turned, sizes.keys),
                        );
                    });
                }
                if wanted[1] {
                    let shape = [sizes.keys, sizes.values, sizes.queries];
                    let target = heads.view(targets[1], head);
                    gemm(shape, target, Start::Zero, p.transposed(), g);
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
