//! Two-dimensional convolution as matrix products: [`winograd`] of many channels, [`stencil`] of stride
//! 1, and over unfolded images otherwise.
//!
//! The output pixels are cut into blocks of a size that depends on the shapes alone; each block is
//! a task: unfold, multiply, store. Small images share a block.

mod geometry;
mod stencil;
mod weight_gradient;
mod winograd;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::gemm::{Start, gemm};
use super::memory::{Output, View, buffer, run, tensor, values, widened, with_scratch};
use super::plain;
use super::simd::{sum_of, vectorised};
use super::tape::{Gradient, Operand, is_fused, is_fused_weight, record_for};
use geometry::Geometry;
use winograd::Kernels;

/// Convolution of [batch, in, height, width] with `weight` [out, in, kernel, kernel] and `bias`
/// `[out]`; `padding` are zeros at top, left, bottom, right.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: [usize; 4],
) -> Tensor<4> {
    if !(is_fused(&x) && is_fused_weight(&weight) && bias.as_ref().is_none_or(is_fused)) {
        return plain::conv2d(x, weight, bias, stride, padding);
    }
    let geometry = Geometry::new(x.dims(), weight.dims(), stride, padding);
    let forward = move |x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>, trained| {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let bias = bias.map(|bias| bias.to_contiguous());
        let y = convolve(&x, &widened(&weight), false, bias.as_ref(), &geometry);
        let gradient = ConvolutionGradient {
            x: Some(x).filter(|_| trained),
            weight,
            geometry,
        };
        (y, gradient)
    };
    match bias {
        Some(bias) => {
            let operands = [Operand::from(x), weight.into(), bias.into()];
            record_for(operands, |[x, weight, bias], [_, trained, _]| {
                forward(x, weight, Some(bias), trained)
            })
        }
        None => record_for(
            [Operand::from(x), weight.into()],
            |[x, weight], [_, trained]| forward(x, weight, None, trained),
        ),
    }
}

/// The convolution itself, of contiguous tensors; with `turned` the kernels are taken the other
/// way round.
fn convolve(
    x: &FlexTensor,
    weight: &FlexTensor,
    turned: bool,
    bias: Option<&FlexTensor>,
    geometry: &Geometry,
) -> FlexTensor {
    let Geometry { batch, outputs, .. } = *geometry;
    let (input, pixels, depth) = (values(x), geometry.pixels(), geometry.depth());
    if winograd::is_for(geometry) {
        let kernels = Kernels::new(values(weight), geometry.inputs);
        let y = winograd::convolve(input, kernels, bias.map(values), geometry);
        return tensor(y, geometry.shape());
    }
    let mut y = buffer(batch * outputs * pixels);
    let target = Output::new(&mut y);
    if geometry.is_stencil() {
        let bias = bias.map(values);
        stencil::convolve(input, values(weight), turned, bias, geometry, target);
        return tensor(y, geometry.shape());
    }
    let bias = bias.map_or(Start::Zero, |bias| Start::Rows(values(bias)));
    let weight = View::rows(values(weight), depth);
    let blocks = geometry.blocks();
    run(blocks.len(), geometry.work(), |i| {
        let block = &blocks[i];
        let count = block.pixels(geometry);
        let columns = match geometry.is_pointwise() {
            true => 0,
            false => depth * count,
        };
        let direct = block.samples.len() == 1;
        let product = if direct { 0 } else { outputs * count };
        with_scratch(columns + product, |scratch| {
            let (columns, product) = scratch.split_at_mut(columns);
            let right = geometry.columns(input, block, 0..geometry.inputs, columns);
            let sizes = [outputs, count, depth];
            let start = block.samples.start * outputs * pixels + block.first_pixel(geometry);
            #[expect(unsafe_code, reason = "each task writes its own block")]
            // SAFETY: the pixels of this block belong to this task alone; the inputs are alive.
            unsafe {
                if direct {
                    let part = target.view(start, pixels, 1);
                    gemm(sizes, part, bias, weight, right);
                    return;
                }
                let part = Output::new(product).view(0, count, 1);
                gemm(sizes, part, bias, weight, right);
                for (o, row) in product.chunks_exact(count).enumerate() {
                    for (sample, row) in row.chunks_exact(pixels).enumerate() {
                        let part = target.part(start + (sample * outputs + o) * pixels, pixels);
                        part.copy_from_slice(row);
                    }
                }
            }
        });
    });
    tensor(y, geometry.shape())
}

#[derive(Debug, Clone)]
struct ConvolutionGradient {
    /// The input, which the gradient of the weight alone needs.
    x: Option<FlexTensor>,
    /// As it is stored, in half precision or not.
    weight: FlexTensor,
    geometry: Geometry,
}

impl Gradient<3> for ConvolutionGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let grad = grad.to_contiguous();
        [
            wanted[0].then(|| self.input_gradient(&grad)),
            self.weight_gradient(&grad, wanted[1]),
            wanted[2].then(|| self.bias_gradient(&grad)),
        ]
    }
}

impl Gradient<2> for ConvolutionGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let grad = grad.to_contiguous();
        [
            wanted[0].then(|| self.input_gradient(&grad)),
            self.weight_gradient(&grad, wanted[1]),
        ]
    }
}

impl ConvolutionGradient {
    fn input_gradient(&self, grad: &FlexTensor) -> FlexTensor {
        match self.geometry.transposed() {
            Some(geometry) if winograd::is_for(&geometry) => {
                let weight = widened(&self.weight);
                let kernels = Kernels::new(values(&weight), self.geometry.inputs).transposed();
                let dx = winograd::convolve(values(grad), kernels, None, &geometry);
                tensor(dx, geometry.shape())
            }
            Some(geometry) => convolve(grad, &self.swapped_weight(), true, None, &geometry),
            None => self.folded_gradient(grad),
        }
    }

    /// The weight as the backward convolution of stride 1 uses it, [in, out, kernel].
    fn swapped_weight(&self) -> FlexTensor {
        let Geometry {
            outputs, inputs, ..
        } = self.geometry;
        let [height, width] = self.geometry.kernel;
        let taps = height * width;
        let weight = widened(&self.weight);
        let weight = values(&weight);
        let mut swapped = buffer(weight.len());
        super::memory::chunks(&mut swapped, outputs * taps, weight.len() / 2, |c, part| {
            let kernels = weight.chunks_exact(taps).skip(c).step_by(inputs);
            if taps == 9 {
                // a copy of known length
                let targets = part.as_chunks_mut::<9>().0;
                for (target, kernel) in targets.iter_mut().zip(kernels) {
                    target.copy_from_slice(kernel);
                }
            } else {
                for (target, kernel) in part.chunks_exact_mut(taps).zip(kernels) {
                    target.copy_from_slice(kernel);
                }
            }
        });
        tensor(swapped, [inputs, outputs, height, width])
    }

    /// The gradient of the input for any stride: the gradients of the unfolded image, folded.
    fn folded_gradient(&self, grad: &FlexTensor) -> FlexTensor {
        let geometry = &self.geometry;
        let [height, width] = geometry.input;
        let (depth, pixels) = (geometry.depth(), geometry.pixels());
        let len = geometry.inputs * height * width;
        let g = values(grad);
        let weight = widened(&self.weight);
        let weight = View::rows(values(&weight), depth);
        let mut dx = buffer(geometry.batch * len);
        super::memory::chunks(&mut dx, len, geometry.work(), |sample, dx| {
            let g = &g[sample * geometry.outputs * pixels..];
            with_scratch(depth * pixels, |columns| {
                let target = Output::new(columns).view(0, pixels, 1);
                let sizes = [depth, pixels, geometry.outputs];
                #[expect(unsafe_code, reason = "views of live buffers")]
                // SAFETY: the columns are this task's own; weight and gradient are alive.
                unsafe {
                    gemm(
                        sizes,
                        target,
                        Start::Zero,
                        weight.transposed(),
                        View::rows(g, pixels),
                    );
                }
                dx.fill(0.0);
                geometry.fold(columns, dx);
            });
        });
        tensor(dx, [geometry.batch, geometry.inputs, height, width])
    }

    /// A task is a few input channels, so that nothing is unfolded twice or added up afterwards.
    fn weight_gradient(&self, grad: &FlexTensor, wanted: bool) -> Option<FlexTensor> {
        let x = self.x.as_ref().filter(|_| wanted)?;
        let geometry = &self.geometry;
        let Geometry {
            inputs, outputs, ..
        } = *geometry;
        let (input, g) = (values(x), values(grad));
        let (depth, pixels) = (geometry.depth(), geometry.pixels());
        let taps = depth / inputs;
        let size = inputs.div_ceil(4).clamp(1, 16);
        let mut dw = buffer(outputs * depth);
        if geometry.is_stencil() {
            weight_gradient::weight_gradient(input, g, geometry, &mut dw);
            return Some(tensor(dw, self.weight.shape()));
        }
        let target = Output::new(&mut dw);
        let blocks = geometry.blocks();
        run(inputs.div_ceil(size), geometry.work(), |i| {
            let channels = i * size..((i + 1) * size).min(inputs);
            let width = channels.len() * taps;
            let target = target.view(i * size * taps, depth, 1);
            for (n, block) in blocks.iter().enumerate() {
                let count = block.pixels(geometry);
                let shared = block.samples.len() > 1;
                let unfolded = if geometry.is_pointwise() {
                    0
                } else {
                    width * count
                };
                let gathered = if shared { outputs * count } else { 0 };
                with_scratch(unfolded + gathered, |scratch| {
                    let (unfolded, gathered) = scratch.split_at_mut(unfolded);
                    let right = geometry.columns(input, block, channels.clone(), unfolded);
                    let start =
                        block.samples.start * outputs * pixels + block.first_pixel(geometry);
                    let left = match shared {
                        true => {
                            gather(&g[start..], gathered, outputs, pixels);
                            View::rows(gathered, count)
                        }
                        false => View::rows(&g[start..], pixels),
                    };
                    let sizes = [outputs, width, count];
                    #[expect(unsafe_code, reason = "each task writes its own channels")]
                    // SAFETY: these channels of dw belong to this task alone; inputs are alive.
                    unsafe {
                        gemm(
                            sizes,
                            target,
                            Start::target_if(n > 0),
                            left,
                            right.transposed(),
                        );
                    }
                });
            }
        });
        Some(tensor(dw, self.weight.shape()))
    }

    fn bias_gradient(&self, grad: &FlexTensor) -> FlexTensor {
        let Geometry { batch, outputs, .. } = self.geometry;
        let (g, pixels) = (values(grad), self.geometry.pixels());
        let mut sums = vec![0.0; batch * outputs];
        let chunk = outputs.max(1);
        super::memory::chunks(&mut sums, chunk, g.len() / 4, |sample, sums| {
            sum_rows(&g[sample * outputs * pixels..], sums, pixels);
        });
        let total = |o| (0..batch).map(|b| sums[b * outputs + o]).sum();
        tensor((0..outputs).map(total).collect(), [outputs])
    }
}

vectorised! {
    fn sum_rows<const FMA: bool>(x: &[f32], sums: &mut [f32], width: usize) {
        for (sum, x) in sums.iter_mut().zip(x.chunks_exact(width)) {
            *sum = sum_of([x], |[x]| x);
        }
    }
}

/// From [samples, channels, pixels] to [channels, samples * pixels].
fn gather(x: &[f32], y: &mut [f32], channels: usize, pixels: usize) {
    let count = y.len() / channels;
    for (sample, x) in x.chunks_exact(channels * pixels).enumerate() {
        if sample * pixels >= count {
            break;
        }
        for (c, x) in x.chunks_exact(pixels).enumerate() {
            y[c * count + sample * pixels..][..pixels].copy_from_slice(x);
        }
    }
}
