//! The sizes of a convolution, and images unfolded into the columns of a matrix.

use std::ops::Range;

use crate::ops::memory::{TASKS, View};

/// Output pixels of a task, about.
const BLOCK: usize = 256;

/// Elements of a weight that is worth sharing out among tasks.
const LARGE: usize = 1 << 18;

/// The sizes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    /// Input channels.
    pub(super) inputs: usize,
    /// Output channels.
    pub(super) outputs: usize,
    /// Height and width of the input.
    pub(super) input: [usize; 2],
    /// Height and width of the kernel.
    pub(super) kernel: [usize; 2],
    /// Input pixels between outputs.
    pub(super) stride: usize,
    /// Zeros at top, left, bottom, right.
    pub(super) padding: [usize; 4],
    /// Height and width of the output.
    pub(super) output: [usize; 2],
}

/// Output pixels that one task computes: some rows of one sample, or several whole samples.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) samples: Range<usize>,
    pub(super) rows: Range<usize>,
}

impl Block {
    /// Output pixels.
    pub(super) fn pixels(&self, geometry: &Geometry) -> usize {
        self.samples.len() * self.rows.len() * geometry.output[1]
    }

    /// The number of its first pixel in the first sample.
    pub(super) fn first_pixel(&self, geometry: &Geometry) -> usize {
        self.rows.start * geometry.output[1]
    }
}

impl Geometry {
    /// From the sizes of input [batch, in, height, width] and weight [out, in, height, width].
    pub(super) fn new(
        x: [usize; 4],
        weight: [usize; 4],
        stride: usize,
        padding: [usize; 4],
    ) -> Self {
        let ([batch, inputs, height, width], [outputs, channels, kh, kw]) = (x, weight);
        let [top, left, bottom, right] = padding;
        assert!(
            inputs == channels
                && stride > 0
                && height + top + bottom >= kh
                && width + left + right >= kw,
            "conv2d: input {x:?} with padding {padding:?} does not fit weight {weight:?}"
        );
        let output = [
            (height + top + bottom - kh) / stride + 1,
            (width + left + right - kw) / stride + 1,
        ];
        Self {
            batch,
            inputs,
            outputs,
            input: [height, width],
            kernel: [kh, kw],
            stride,
            padding,
            output,
        }
    }

    /// The shape of the output.
    pub(super) fn shape(&self) -> [usize; 4] {
        let [height, width] = self.output;
        [self.batch, self.outputs, height, width]
    }

    /// Output pixels of a sample.
    pub(super) fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Products that make one output value.
    pub(super) fn depth(&self) -> usize {
        self.inputs * self.kernel[0] * self.kernel[1]
    }

    /// All the work, about a nanosecond each unit.
    pub(super) fn work(&self) -> usize {
        self.batch * self.pixels() * self.depth() * self.outputs / 32
    }

    /// Whether the image is its own unfolding.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0; 4]
    }

    /// Whether it moves by one pixel and looks at several, with padding smaller than the kernel.
    pub(super) fn is_stencil(&self) -> bool {
        self.kernel != [1, 1] && self.transposed().is_some()
    }

    /// The convolution that computes the gradient of the input, if it is one.
    pub(super) fn transposed(&self) -> Option<Self> {
        let [kh, kw] = self.kernel;
        let [top, left, bottom, right] = self.padding;
        let fits = top < kh && bottom < kh && left < kw && right < kw;
        (self.stride == 1 && fits).then(|| Self {
            inputs: self.outputs,
            outputs: self.inputs,
            input: self.output,
            output: self.input,
            padding: [kh - 1 - top, kw - 1 - left, kh - 1 - bottom, kw - 1 - right],
            ..*self
        })
    }

    /// The tasks: of similar size and even number, by the shapes alone.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let [height, width] = self.output;
        let pixels = self.pixels().max(1);
        if pixels >= BLOCK || self.is_pointwise() {
            let rows = (BLOCK / width.max(1)).clamp(1, height.max(1));
            let rows = match self.is_pointwise() && pixels < 4 * BLOCK {
                true => height,
                false => rows,
            };
            let starts = || (0..height).step_by(rows.max(1));
            let blocks = (0..self.batch).flat_map(|sample| {
                starts().map(move |start| Block {
                    samples: sample..sample + 1,
                    rows: start..(start + rows).min(height),
                })
            });
            return blocks.collect();
        }
        let tasks = (self.batch * pixels).div_ceil(BLOCK).next_multiple_of(2);
        let samples = self.batch.div_ceil(tasks).max(1);
        let starts = (0..self.batch).step_by(samples);
        let block = |start| Block {
            samples: start..(start + samples).min(self.batch),
            rows: 0..height,
        };
        starts.map(block).collect()
    }

    /// How many output channels a task computes when there are so many blocks: all of them, or
    /// fewer where the weight is large and the blocks are few.
    pub(super) fn outputs_of_a_task(&self, blocks: usize) -> usize {
        if self.depth() * self.outputs < LARGE || blocks >= TASKS {
            return self.outputs;
        }
        let tasks = TASKS.div_ceil(blocks.max(1));
        let size = self.outputs.div_ceil(tasks).next_multiple_of(8).max(32);
        size.min(self.outputs)
    }

    /// The unfolded image [channels * kernel, pixels of the block], made in `buffer` where needed.
    pub(super) fn columns(
        &self,
        x: &[f32],
        block: &Block,
        channels: Range<usize>,
        buffer: &mut [f32],
    ) -> View {
        let image = self.input[0] * self.input[1];
        if self.is_pointwise() {
            let start = (block.samples.start * self.inputs + channels.start) * image;
            return View::rows(&x[start + block.first_pixel(self)..], image);
        }
        let count = block.pixels(self);
        let part = block.rows.len() * self.output[1];
        let taps = self.kernel[0] * self.kernel[1];
        for (n, sample) in block.samples.clone().enumerate() {
            for (i, c) in channels.clone().enumerate() {
                let image = &x[(sample * self.inputs + c) * image..][..image];
                for tap in 0..taps {
                    let row = &mut buffer[(i * taps + tap) * count + n * part..][..part];
                    self.unfold(image, tap, block.rows.clone(), row);
                }
            }
        }
        View::rows(buffer, count)
    }

    /// What one tap of the kernel sees of an image.
    fn unfold(&self, image: &[f32], tap: usize, rows: Range<usize>, target: &mut [f32]) {
        let [height, width] = self.input;
        let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
        let [top, left, ..] = self.padding;
        let seen = self.seen(kx);
        for (oy, target) in rows.zip(target.chunks_exact_mut(self.output[1])) {
            let y = (oy * self.stride + ky).wrapping_sub(top);
            if y >= height || seen.is_empty() {
                target.fill(0.0);
                continue;
            }
            let row = &image[y * width..(y + 1) * width];
            target[..seen.start].fill(0.0);
            target[seen.end..].fill(0.0);
            let first = seen.start * self.stride + kx - left;
            let target = &mut target[seen.clone()];
            if self.stride == 1 {
                target.copy_from_slice(&row[first..first + target.len()]);
            } else {
                for (t, &x) in target
                    .iter_mut()
                    .zip(row[first..].iter().step_by(self.stride))
                {
                    *t = x;
                }
            }
        }
    }

    /// The output columns whose tap in kernel column `kx` lies on the image.
    fn seen(&self, kx: usize) -> Range<usize> {
        let [_, left, ..] = self.padding;
        let start = left.saturating_sub(kx).div_ceil(self.stride);
        let reach = (self.input[1] + left).saturating_sub(kx);
        let end = reach.div_ceil(self.stride).min(self.output[1]);
        start.min(end)..end
    }

    /// Adds unfolded gradients [channels * kernel, pixels] to the image [channels, height, width].
    pub(super) fn fold(&self, columns: &[f32], image: &mut [f32]) {
        let [height, width] = self.input;
        let [top, left, ..] = self.padding;
        let taps = self.kernel[0] * self.kernel[1];
        for (i, column) in columns.chunks_exact(self.pixels()).enumerate() {
            let (c, tap) = (i / taps, i % taps);
            let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
            let seen = self.seen(kx);
            for (oy, column) in column.chunks_exact(self.output[1]).enumerate() {
                let y = (oy * self.stride + ky).wrapping_sub(top);
                if y >= height || seen.is_empty() {
                    continue;
                }
                let first = seen.start * self.stride + kx - left;
                let row = &mut image[(c * height + y) * width..][first..width];
                let pixels = row.iter_mut().step_by(self.stride);
                for (x, &g) in pixels.zip(&column[seen.clone()]) {
                    *x += g;
                }
            }
        }
    }
}
