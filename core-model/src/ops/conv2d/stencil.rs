//! Convolutions of stride 1 without unfolding.
//!
//! The rows of an image are laid one after another with the zeros of the padding between them, so
//! that every tap of the kernel sees the image at a constant distance. The convolution is then a
//! matrix product whose right matrix has, for each channel and tap, a row that begins elsewhere in
//! the same memory. The zeros to the right of one row serve as those to the left of the next.
//!
//! Images narrower than a vector are laid out once for each column of the kernel, shifted by it:
//! then no place between rows is needed, and none is computed in vain.

use std::ops::Range;

use super::geometry::{Block, Geometry};
use crate::ops::kernel::{Columns, DEPTH, Product, Start, Steps, lanes};
use crate::ops::memory::{Output, SERIAL, chunks, copy_row, run, with_scratch};

/// How the padded images of a block lie in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Padded {
    /// Floats from one row to the next.
    row: usize,
    /// Rows from one sample to the next.
    rows: usize,
    /// Floats from one channel to the next, or from one shifted copy of a channel to the next.
    plane: usize,
    /// Copies of each channel: one, or one for each column of the kernel.
    copies: usize,
    /// Outputs of a channel that are computed, valid ones and those between rows.
    computed: usize,
}

impl Padded {
    /// For some rows of one sample or for whole samples.
    pub(super) fn new(geometry: &Geometry, block: &Block) -> Self {
        let [kh, kw] = geometry.kernel;
        let [top, left, bottom, right] = geometry.padding;
        let samples = block.samples.len();
        let shifted = geometry.output == geometry.input
            && geometry.output[1] < lanes()
            && geometry.pixels().is_multiple_of(lanes())
            && block.rows.len() == geometry.output[0];
        let (row, rows, copies) = match (shifted, samples) {
            (true, _) => (geometry.output[1], geometry.input[0] + top.max(bottom), kw),
            (false, 1) => (geometry.input[1] + left.max(right), block.rows.len(), 1),
            (false, _) => (
                geometry.input[1] + left.max(right),
                geometry.input[0] + top.max(bottom),
                1,
            ),
        };
        let last_row = (samples - 1) * rows + block.rows.len() - 1;
        Self {
            row,
            rows,
            // one vector may be read beyond the end
            plane: (samples * rows + kh) * row + kw + lanes(),
            copies,
            computed: last_row * row + geometry.output[1],
        }
    }

    /// Floats of all channels.
    pub(super) fn len(&self, channels: usize) -> usize {
        channels * self.copies * self.plane
    }

    /// Outputs of a channel that are computed, valid ones and those between rows.
    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// Copies the images of some channels into `target`.
    pub(super) fn fill(
        &self,
        geometry: &Geometry,
        block: &Block,
        channels: Range<usize>,
        x: &[f32],
        target: &mut [f32],
    ) {
        if self.copies > 1 {
            return self.fill_shifted(geometry, block, channels, x, target);
        }
        let [height, width] = geometry.input;
        let [top, left, ..] = geometry.padding;
        let image = height * width;
        let needed = block.rows.len() + geometry.kernel[0] - 1;
        for (c, plane) in channels.zip(target.chunks_exact_mut(self.plane)) {
            plane.fill(0.0);
            for (n, sample) in block.samples.clone().enumerate() {
                let image = &x[(sample * geometry.inputs + c) * image..][..image];
                for j in 0..needed {
                    let y = (block.rows.start + j).wrapping_sub(top);
                    if y < height {
                        let start = (n * self.rows + j) * self.row + left;
                        let row = &image[y * width..(y + 1) * width];
                        copy_row(row, &mut plane[start..start + width]);
                    }
                }
            }
        }
    }

    /// [`Self::fill`] with a shifted copy for each column of the kernel.
    fn fill_shifted(
        &self,
        geometry: &Geometry,
        block: &Block,
        channels: Range<usize>,
        x: &[f32],
        target: &mut [f32],
    ) {
        let width = geometry.input[1];
        let [top, left, ..] = geometry.padding;
        let len = geometry.pixels();
        for (c, planes) in channels.zip(target.chunks_exact_mut(self.copies * self.plane)) {
            for (kx, plane) in planes.chunks_exact_mut(self.plane).enumerate() {
                plane.fill(0.0);
                for (n, sample) in block.samples.clone().enumerate() {
                    let image = &x[(sample * geometry.inputs + c) * len..][..len];
                    let copy = &mut plane[(n * self.rows + top) * width..][..len];
                    // The whole image is shifted at once; what crossed an edge becomes zero.
                    if kx < left {
                        let shift = left - kx;
                        copy[shift.min(len)..].copy_from_slice(&image[..len.saturating_sub(shift)]);
                        for row in copy.chunks_exact_mut(width) {
                            row[..shift.min(width)].fill(0.0);
                        }
                    } else {
                        let shift = kx - left;
                        copy[..len.saturating_sub(shift)].copy_from_slice(&image[shift.min(len)..]);
                        for row in copy.chunks_exact_mut(width) {
                            row[width.saturating_sub(shift)..].fill(0.0);
                        }
                    }
                }
            }
        }
    }

    /// Where each channel and tap begins.
    pub(super) fn taps(&self, geometry: &Geometry, channels: usize) -> Vec<u32> {
        let [kh, kw] = geometry.kernel;
        let tap = |c: usize, ky: usize, kx: usize| {
            let place = match self.copies {
                1 => c * self.plane + kx,
                copies => (c * copies + kx) * self.plane,
            };
            (place + ky * self.row) as u32
        };
        (0..channels)
            .flat_map(|c| (0..kh).flat_map(move |ky| (0..kw).map(move |kx| tap(c, ky, kx))))
            .collect()
    }

    /// Where the valid rows of outputs begin: sample and row within the block, place in memory.
    pub(super) fn output_rows(&self, block: &Block) -> impl Iterator<Item = (usize, usize, usize)> {
        let (rows, per_sample, row) = (block.rows.len(), self.rows, self.row);
        (0..block.samples.len())
            .flat_map(move |n| (0..rows).map(move |y| (n, y, (n * per_sample + y) * row)))
    }
}

/// Convolves into `target` [batch, out, height, width]; `weight` is [out, in * kernel], with
/// `turned` each kernel the other way round.
pub(super) fn convolve(
    x: &[f32],
    weight: &[f32],
    turned: bool,
    bias: Option<&[f32]>,
    geometry: &Geometry,
    target: Output,
) {
    let blocks = geometry.blocks();
    let step = |block| Step::new(weight, turned, bias, geometry, block, target);
    let size = geometry.outputs_of_a_task(blocks.len());
    if size == geometry.outputs {
        run(blocks.len(), geometry.work(), |i| {
            let step = step(&blocks[i]);
            with_scratch(step.padded.len(geometry.inputs), |images| {
                let all = 0..geometry.inputs;
                step.padded.fill(geometry, &blocks[i], all, x, images);
                step.multiply(images, 0..geometry.outputs);
            });
        });
        return;
    }
    // Few pixels and many channels: the outputs of a block are shared out.
    for block in &blocks {
        let step = step(block);
        with_scratch(step.padded.len(geometry.inputs), |images| {
            let channels = geometry.inputs.div_ceil(16);
            chunks(images, step.padded.len(channels), SERIAL, |i, images| {
                let first = i * channels;
                let channels = first..(first + channels).min(geometry.inputs);
                step.padded.fill(geometry, block, channels, x, images);
            });
            let tasks = geometry.outputs.div_ceil(size);
            run(tasks, geometry.work(), |i| {
                let first = i * size;
                step.multiply(images, first..(first + size).min(geometry.outputs));
            });
        });
    }
}

/// Floats of weights that stay in a core's cache while the columns pass by.
const CACHED: usize = 1 << 16;

/// The convolution of one block.
struct Step<'a> {
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    geometry: &'a Geometry,
    block: &'a Block,
    target: Output,
    padded: Padded,
    taps: Vec<u32>,
}

impl<'a> Step<'a> {
    fn new(
        weight: &'a [f32],
        turned: bool,
        bias: Option<&'a [f32]>,
        geometry: &'a Geometry,
        block: &'a Block,
        target: Output,
    ) -> Self {
        let padded = Padded::new(geometry, block);
        let mut taps = padded.taps(geometry, geometry.inputs);
        if turned {
            let [kh, kw] = geometry.kernel;
            taps.chunks_exact_mut(kh * kw).for_each(<[u32]>::reverse);
        }
        Self {
            weight,
            bias,
            geometry,
            block,
            target,
            padded,
            taps,
        }
    }

    /// Writes some output channels, as many at a time as have weights that stay in the cache: those
    /// of the [`DEPTH`] taps that are multiplied at a time.
    fn multiply(&self, images: &[f32], outputs: Range<usize>) {
        let rows = ((CACHED / self.geometry.depth().min(DEPTH)) & !7).max(8);
        for first in outputs.clone().step_by(rows) {
            self.multiply_rows(images, first..(first + rows).min(outputs.end));
        }
    }

    fn multiply_rows(&self, images: &[f32], outputs: Range<usize>) {
        let Self {
            geometry,
            block,
            padded,
            ..
        } = self;
        let [.., width] = geometry.output;
        let pixels = geometry.pixels();
        let sample = geometry.outputs * pixels;
        let start =
            block.samples.start * sample + outputs.start * pixels + block.first_pixel(geometry);
        let product = Product {
            rows: outputs.len(),
            depth: geometry.depth(),
            left: self.weight[outputs.start * geometry.depth()..].as_ptr(),
            left_rows: Steps::Stride(geometry.depth()),
            left_column: 1,
            right: images.as_ptr(),
            right_rows: Steps::Table(&self.taps),
            columns: Columns::First(padded.computed),
            target: std::ptr::null_mut(),
            target_row: padded.computed,
            start: self
                .bias
                .map_or(Start::Zero, |bias| Start::Rows(&bias[outputs.clone()])),
        };
        if padded.copies > 1 || width.is_multiple_of(lanes()) {
            // vectors of valid outputs only, stored where they belong
            let (mut rights, mut targets) = (Vec::new(), Vec::new());
            for (n, y, place) in padded.output_rows(block) {
                let first = y * width;
                // narrow rows share a vector, which belongs to the first of them
                let columns = (0..width).filter(|x| (first + x).is_multiple_of(lanes()));
                for x in columns {
                    rights.push((place + x) as u32);
                    targets.push((n * sample + first + x) as u32);
                }
            }
            let product = Product {
                columns: Columns::Vectors {
                    right: &rights,
                    target: &targets,
                },
                target: self.target.view(start, 0, 1).at.cast_mut(),
                target_row: pixels,
                ..product
            };
            #[expect(unsafe_code, reason = "each task writes its own outputs")]
            // SAFETY: the tables stay within the padded images and this task's outputs.
            unsafe {
                product.run();
            }
            return;
        }
        with_scratch(outputs.len() * padded.computed, |sums| {
            let product = Product {
                target: sums.as_mut_ptr(),
                ..product
            };
            #[expect(unsafe_code, reason = "each task writes its own outputs")]
            // SAFETY: the sums are this task's own, and so are the rows of outputs below.
            unsafe {
                product.run();
                for (o, sums) in sums.chunks_exact(padded.computed).enumerate() {
                    for (n, y, place) in padded.output_rows(block) {
                        let start = start + n * sample + o * pixels + y * width;
                        self.target
                            .part(start, width)
                            .copy_from_slice(&sums[place..place + width]);
                    }
                }
            }
        });
    }
}
