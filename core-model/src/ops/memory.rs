//! Buffers of fused operations: reading tensors, making them, sharing an output among threads.

use std::cell::RefCell;

use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Below this many units of work (about a nanosecond each) threads cost more than they bring.
pub(super) const SERIAL: usize = 20_000;

/// Tasks that keep the cores of a machine busy until the end.
pub(super) const TASKS: usize = 16;

/// A buffer whose values are all to be written before any is read.
#[expect(unsafe_code, reason = "zeroing would cost as much as a cheap kernel")]
#[expect(
    clippy::uninit_vec,
    reason = "every float is written before it is read"
)]
pub(super) fn buffer(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity was just reserved, any bits are a float, and callers write before they read.
    unsafe { values.set_len(len) };
    values
}

/// A contiguous tensor of these values.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// A view of these values by other strides.
pub(super) fn strided(
    values: Vec<f32>,
    shape: impl Into<Shape>,
    strides: Vec<isize>,
) -> FlexTensor {
    let layout = Layout::new(shape.into(), strides, 0);
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// The values of a contiguous tensor.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice()
        .expect("the tensor was made contiguous and holds float32")
}

/// A weight in float32, in which everything is computed; a copy where it is stored in half
/// precision.
pub(super) fn widened(x: &FlexTensor) -> FlexTensor {
    const PIECE: usize = 1 << 16;
    let shape = x.shape();
    let mut wide = match x.dtype() {
        DType::F16 | DType::BF16 => buffer(shape.num_elements()),
        _ => return x.clone(),
    };
    let x = x.to_contiguous();
    let work = wide.len() / 4;
    match x.dtype() {
        DType::F16 => {
            let source: &[f16] = x.as_slice().expect("made contiguous, of this type");
            chunks(&mut wide, PIECE, work, |i, part| {
                source[i * PIECE..][..part.len()].convert_to_f32_slice(part);
            });
        }
        _ => {
            let source: &[bf16] = x.as_slice().expect("made contiguous, of this type");
            chunks(&mut wide, PIECE, work, |i, part| {
                source[i * PIECE..][..part.len()].convert_to_f32_slice(part);
            });
        }
    }
    tensor(wide, shape)
}

/// Copies a short row; a call of the library's copy takes longer than the copy itself.
#[inline(always)]
pub(super) fn copy_row(source: &[f32], target: &mut [f32]) {
    let (sources, rest) = source.as_chunks::<8>();
    let (targets, target_rest) = target.as_chunks_mut::<8>();
    for (target, source) in targets.iter_mut().zip(sources) {
        *target = *source;
    }
    for (target, source) in target_rest.iter_mut().zip(rest) {
        *target = *source;
    }
}

/// The sizes of a tensor of known rank.
pub(super) fn dims<const D: usize>(x: &FlexTensor) -> [usize; D] {
    std::array::from_fn(|i| x.layout().shape()[i])
}

/// A float matrix somewhere in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Its first value.
    pub(super) at: *const f32,
    /// Distance between rows, in floats.
    pub(super) row: isize,
    /// Distance between columns, in floats.
    pub(super) column: isize,
}

impl View {
    /// The transposed matrix.
    pub(super) fn transposed(self) -> Self {
        Self {
            at: self.at,
            row: self.column,
            column: self.row,
        }
    }

    /// Without the first rows and columns.
    pub(super) fn from(self, row: usize, column: usize) -> Self {
        let offset = row as isize * self.row + column as isize * self.column;
        Self {
            at: self.at.wrapping_offset(offset),
            ..self
        }
    }

    /// The matrix that two dimensions of a tensor span, at the given position of the others.
    pub(super) fn of(x: &FlexTensor, row: usize, column: usize, at: &[(usize, usize)]) -> Self {
        let strides = x.layout().strides();
        let offset: isize = at.iter().map(|&(dim, i)| i as isize * strides[dim]).sum();
        let start = x.layout().start_offset() as isize + offset;
        Self {
            at: x.storage::<f32>().as_ptr().wrapping_offset(start),
            row: strides[row],
            column: strides[column],
        }
    }

    /// A row-major matrix of `columns` columns.
    pub(super) fn rows(values: &[f32], columns: usize) -> Self {
        Self {
            at: values.as_ptr(),
            row: columns as isize,
            column: 1,
        }
    }
}

/// An output to which several threads write, each to its own part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    at: *mut f32,
    len: usize,
}

#[expect(
    unsafe_code,
    reason = "tasks write to disjoint parts, which chunks cannot express"
)]
mod sharing {
    use super::Output;

    // SAFETY: a plain address; `Output::part` states what its users guarantee.
    unsafe impl Send for Output {}
    // SAFETY: as above.
    unsafe impl Sync for Output {}

    impl Output {
        /// The buffer to share.
        pub(in crate::ops) fn new(values: &mut [f32]) -> Self {
            Self {
                at: values.as_mut_ptr(),
                len: values.len(),
            }
        }

        /// A matrix in it, starting at a float's number; for use as a target.
        pub(in crate::ops) fn view(self, start: usize, row: usize, column: usize) -> super::View {
            super::View {
                at: self.at.wrapping_add(start),
                row: row as isize,
                column: column as isize,
            }
        }

        /// A part of it.
        ///
        /// # Safety
        /// The buffer is alive, and no other thread holds an overlapping part.
        pub(in crate::ops) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
            assert!(start + len <= self.len, "a part outside of the output");
            // SAFETY: in bounds as just checked; exclusive by this function's contract.
            unsafe { std::slice::from_raw_parts_mut(self.at.add(start), len) }
        }
    }
}

/// Runs tasks `0..tasks` in the current thread pool; `work` is the whole work, about a nanosecond
/// each unit. What a task computes never depends on the number of threads.
pub(super) fn run(tasks: usize, work: usize, task: impl Fn(usize) + Sync) {
    if tasks < 2 || work < SERIAL || rayon::current_num_threads() == 1 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(&task);
    }
}

/// Calls `task` with the index and values of each chunk of `output`.
pub(super) fn chunks(
    output: &mut [f32],
    chunk: usize,
    work: usize,
    task: impl Fn(usize, &mut [f32]) + Sync,
) {
    if output.len() <= chunk || work < SERIAL || rayon::current_num_threads() == 1 {
        for (i, part) in output.chunks_mut(chunk).enumerate() {
            task(i, part);
        }
    } else {
        output
            .par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(i, part)| task(i, part));
    }
}

/// Calls `task` with a buffer of this thread that keeps its memory between calls; its contents
/// are arbitrary.
pub(super) fn with_scratch<R>(len: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        // A stack, for tasks that ask for scratch while they hold some.
        static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let kept = SCRATCH.with_borrow_mut(Vec::pop);
    let mut values = kept.filter(|values| values.len() >= len);
    let values = values.get_or_insert_with(|| buffer(len));
    let result = task(&mut values[..len]);
    let values = std::mem::take(values);
    SCRATCH.with_borrow_mut(|kept| kept.push(values));
    result
}

#[expect(unsafe_code, reason = "an address that several tasks read")]
mod reading {
    use super::View;

    // SAFETY: a plain address, read only where the tensor it came from is alive.
    unsafe impl Send for View {}
    // SAFETY: as above.
    unsafe impl Sync for View {}
}
