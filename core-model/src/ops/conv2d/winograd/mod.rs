//! Convolutions of 3 x 3 taps by Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray 2016,
//! "Fast Algorithms for Convolutional Neural Networks", section 4.1).
//!
//! A tile of 2 x 2 outputs needs 16 products where the convolution itself has 36. Tiles of the image and
//! kernels are taken to 16 points each, at every point one matrix product sums over the input channels,
//! and sums of its results are the outputs. The factors are 1, -1 and 1/2 and the sums have a ninth of the
//! terms, so that the results are closer to exact ones than those of plain sums.

mod transforms;

use std::ops::Range;

use super::geometry::Geometry;
use crate::ops::gemm::{Right, Start, gemm_by, packed_row};
use crate::ops::memory::{Output, View, buffer, chunks, copy_row, run, with_scratch};
use transforms::{LANES, transform_back, transform_columns, transform_kernels, transform_row};

/// Products of a tile and a pair of channels.
const POINTS: usize = 16;

/// Channels, of input and output, from which on the products are most of the work.
const CHANNELS: usize = 128;

/// Output pixels of a sample from which on transforming the kernels pays.
const PIXELS: usize = 256;

/// Tiles of a strip, about.
const TILES: usize = 128;

/// Output channels whose products exist at a time.
const OUTPUTS: usize = 48;

/// Whether this is the way to compute a convolution; it does not depend on the batch, so that an image
/// has the same bits in any.
pub(super) fn is_for(geometry: &Geometry) -> bool {
    geometry.kernel == [3, 3]
        && geometry.is_stencil()
        && geometry.inputs.min(geometry.outputs) >= CHANNELS
        && geometry.pixels() >= PIXELS
}

/// The kernels of a convolution, nine floats each, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernels<'a> {
    weight: &'a [f32],
    /// Floats from one output channel to the next.
    output: usize,
    /// Floats from one input channel to the next.
    input: usize,
    /// Whether each is taken the other way round.
    turned: bool,
}

impl<'a> Kernels<'a> {
    /// Of the weight [out, in, 3, 3] of a convolution of so many inputs.
    pub(super) fn new(weight: &'a [f32], inputs: usize) -> Self {
        Self {
            weight,
            output: 9 * inputs,
            input: 9,
            turned: false,
        }
    }

    /// Without those of the first outputs.
    fn skip(self, outputs: usize) -> Self {
        Self {
            weight: &self.weight[outputs * self.output..],
            ..self
        }
    }

    /// Of the convolution that computes the gradient of the input.
    pub(super) fn transposed(self) -> Self {
        Self {
            output: self.input,
            input: self.output,
            turned: !self.turned,
            ..self
        }
    }
}

/// The convolution [batch, out, height, width] of `x` [batch, in, height, width].
///
/// Of the transformed kernels and the transformed images the smaller ones are made first, as a whole;
/// each task then makes its part of the others.
pub(super) fn convolve(
    x: &[f32],
    kernels: Kernels,
    bias: Option<&[f32]>,
    geometry: &Geometry,
) -> Vec<f32> {
    let Geometry {
        inputs, outputs, ..
    } = *geometry;
    let strips = Strip::all(geometry);
    let mut result = buffer(geometry.batch * outputs * geometry.pixels());
    let convolution = Convolution {
        x,
        kernels,
        bias,
        geometry,
        target: Output::new(&mut result),
    };
    let blocks = (0..outputs).step_by(OUTPUTS);
    let blocks: Vec<Range<usize>> = blocks
        .map(|first| first..(first + OUTPUTS).min(outputs))
        .collect();
    let tiles: usize = strips.iter().map(Strip::tiles).sum();
    let most = strips.iter().map(Strip::tiles).max().unwrap_or(0);
    let of_block = POINTS * inputs * OUTPUTS.min(outputs);
    let products = POINTS * OUTPUTS.min(outputs) * most;
    let work = geometry.work();
    if outputs <= tiles {
        let mut weights = buffer(POINTS * inputs * outputs);
        chunks(&mut weights, of_block, work, |i, part| {
            convolution.transform_kernels(blocks[i].clone(), part);
        });
        run(strips.len(), work, |i| {
            let strip = &strips[i];
            let image = POINTS * inputs * strip.tiles();
            with_scratch(image + products, |scratch| {
                let (image, products) = scratch.split_at_mut(image);
                convolution.transform_image(strip, 0..inputs, Output::new(image), 0);
                for (block, weights) in blocks.iter().zip(weights.chunks(of_block)) {
                    convolution.multiply(strip, block.clone(), weights, image, products);
                }
            });
        });
        return result;
    }
    let mut images = buffer(POINTS * inputs * tiles);
    let transformed = Output::new(&mut images);
    let start = |strip: &Strip| POINTS * inputs * strip.first;
    let groups = inputs.div_ceil(LANES);
    run(strips.len() * groups, work, |i| {
        let (strip, first) = (&strips[i / groups], i % groups * LANES);
        let channels = first..(first + LANES).min(inputs);
        convolution.transform_image(strip, channels, transformed, start(strip));
    });
    run(blocks.len(), work, |i| {
        with_scratch(of_block + products, |scratch| {
            let (weights, products) = scratch.split_at_mut(of_block);
            convolution.transform_kernels(blocks[i].clone(), weights);
            for strip in &strips {
                let image = &images[start(strip)..];
                convolution.multiply(strip, blocks[i].clone(), weights, image, products);
            }
        });
    });
    result
}

/// Some rows of tiles of one sample.
#[derive(Debug, Clone)]
struct Strip {
    sample: usize,
    rows: Range<usize>,
    /// Tiles of a row.
    width: usize,
    /// Tiles of the strips before it.
    first: usize,
}

impl Strip {
    fn all(geometry: &Geometry) -> Vec<Self> {
        let [height, width] = geometry.output.map(|side| side.div_ceil(2));
        let rows = (TILES / width).clamp(1, height);
        let starts = |sample| (0..height).step_by(rows).map(move |start| (sample, start));
        let starts = (0..geometry.batch).flat_map(starts);
        let strips = starts.map(|(sample, start)| Self {
            sample,
            rows: start..(start + rows).min(height),
            width,
            first: (sample * height + start) * width,
        });
        strips.collect()
    }

    fn tiles(&self) -> usize {
        self.rows.len() * self.width
    }
}

struct Convolution<'a> {
    x: &'a [f32],
    kernels: Kernels<'a>,
    bias: Option<&'a [f32]>,
    geometry: &'a Geometry,
    target: Output,
}

impl Convolution<'_> {
    /// Into `target` [points, outputs, in] the transformed kernels of some outputs.
    fn transform_kernels(&self, outputs: Range<usize>, target: &mut [f32]) {
        let kernels = self.kernels.skip(outputs.start);
        transform_kernels(kernels, [outputs.len(), self.geometry.inputs], target);
    }

    /// Into `target` [points, in, tiles], which begins at `place`, the transformed tiles of some channels
    /// of a strip, the matrix of each point in panels.
    fn transform_image(&self, strip: &Strip, channels: Range<usize>, target: Output, place: usize) {
        let Geometry { inputs, .. } = *self.geometry;
        let ([height, width], tiles) = (self.geometry.input, strip.tiles());
        let [top, left, ..] = self.geometry.padding;
        // One row of the padded image, the points of the rows of the strip, the points of its tiles.
        let line = 2 * strip.width + 2;
        let rows = 2 * strip.rows.len() + 2;
        let of_row = 4 * strip.width;
        with_scratch(line + rows * of_row + POINTS * tiles, |scratch| {
            let (line, scratch) = scratch.split_at_mut(line);
            let (points, transformed) = scratch.split_at_mut(rows * of_row);
            let seen = width.min(line.len() - left);
            line.fill(0.0);
            for channel in channels {
                let image = (strip.sample * inputs + channel) * height * width;
                for (j, points) in points.chunks_exact_mut(of_row).enumerate() {
                    let y = (2 * strip.rows.start + j).wrapping_sub(top);
                    if y < height {
                        let row = &self.x[image + y * width..][..seen];
                        copy_row(row, &mut line[left..left + seen]);
                        transform_row(line, points);
                    } else {
                        points.fill(0.0);
                    }
                }
                transform_columns(points, strip.width, transformed);
                for (start, columns) in packed_row(channel, [inputs, tiles]) {
                    for (point, row) in transformed.chunks_exact(tiles).enumerate() {
                        let start = place + point * inputs * tiles + start;
                        #[expect(unsafe_code, reason = "each task writes its own channels")]
                        // SAFETY: rows of a matrix lie apart, and this one is this task's.
                        let target = unsafe { target.part(start, columns.len()) };
                        copy_row(&row[columns.clone()], target);
                    }
                }
            }
        });
    }

    /// Writes some outputs of a strip, of which `weights` and `image` are the transformed kernels and
    /// tiles; there is place in `products` for their products.
    fn multiply(
        &self,
        strip: &Strip,
        outputs: Range<usize>,
        weights: &[f32],
        image: &[f32],
        products: &mut [f32],
    ) {
        let Geometry { inputs, .. } = *self.geometry;
        let (count, tiles) = (outputs.len(), strip.tiles());
        let products = &mut products[..POINTS * count * tiles];
        for (point, products) in products.chunks_exact_mut(count * tiles).enumerate() {
            let left = View::rows(&weights[point * count * inputs..], inputs);
            let right = View::rows(&image[point * inputs * tiles..], tiles);
            let target = Output::new(products).view(0, tiles, 1);
            #[expect(unsafe_code, reason = "matrices given by their addresses")]
            // SAFETY: the sizes are those of the three slices.
            unsafe {
                gemm_by(
                    [count, tiles, inputs],
                    target,
                    Start::Zero,
                    left,
                    Right::Packed(right),
                );
            }
        }
        let [height, width] = self.geometry.output;
        let channels = self.geometry.outputs;
        with_scratch(4 * strip.width, |pair| {
            for (i, output) in outputs.enumerate() {
                let bias = self.bias.map_or(0.0, |bias| bias[output]);
                let image = (strip.sample * channels + output) * height * width;
                for (row, y) in strip.rows.clone().map(|row| 2 * row).enumerate() {
                    let first = i * tiles + row * strip.width;
                    transform_back(&products[first..], count * tiles, bias, pair);
                    let rows = pair.chunks_exact(2 * strip.width);
                    for (y, row) in (y..height).zip(rows) {
                        #[expect(unsafe_code, reason = "each task writes its own outputs")]
                        // SAFETY: these rows of these outputs belong to this task alone.
                        let target = unsafe { self.target.part(image + y * width, width) };
                        copy_row(&row[..width], target);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::stencil;
    use super::*;
    use crate::rng::standard_normal;

    /// Root mean squares of the difference to sums in float64, of tiles and of plain sums, beside the root
    /// mean square of the sums.
    fn rounding(inputs: usize, side: usize) -> [f64; 2] {
        let outputs = CHANNELS;
        let geometry = Geometry::new([1, inputs, side, side], [outputs, inputs, 3, 3], 1, [1; 4]);
        let (x, weight) = (
            standard_normal(0, "image", 0, inputs * side * side),
            standard_normal(0, "weight", 0, outputs * inputs * 9),
        );
        let tiles = convolve(&x, Kernels::new(&weight, inputs), None, &geometry);
        let mut plain = vec![0.0; tiles.len()];
        let target = Output::new(&mut plain);
        stencil::convolve(&x, &weight, false, None, &geometry, target);
        let results = [tiles, plain];
        let (mut errors, mut squares) = ([0.0; 2], 0.0);
        // Some pixels of some channels are enough, with corners and edges among them.
        for (o, y, x0) in (0..outputs)
            .step_by(17)
            .flat_map(|o| (0..side).map(move |y| (o, y, (y * 7 + o) % side)))
        {
            let mut exact = 0.0f64;
            for c in 0..inputs {
                for tap in 0..9 {
                    let (row, column) = (y + tap / 3, x0 + tap % 3);
                    if (1..=side).contains(&row) && (1..=side).contains(&column) {
                        let pixel = x[(c * side + row - 1) * side + column - 1];
                        let factor = weight[(o * inputs + c) * 9 + tap];
                        exact += f64::from(pixel) * f64::from(factor);
                    }
                }
            }
            squares += exact * exact;
            for (error, result) in errors.iter_mut().zip(&results) {
                let value = f64::from(result[(o * side + y) * side + x0]);
                *error += (value - exact) * (value - exact);
            }
        }
        errors.map(|error| (error / squares).sqrt())
    }

    #[test]
    fn sums_over_tiles_are_closer_to_exact_ones_than_plain_sums() {
        for (inputs, side) in [(128, 16), (320, 32), (1280, 16)] {
            let [tiles, plain] = rounding(inputs, side);
            assert!(
                tiles < 5e-7 && tiles < plain,
                "{inputs} channels: {tiles}, {plain}"
            );
        }
    }
}
