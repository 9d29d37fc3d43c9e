//! Gradient checkpointing (Chen et al. 2016): of a part of a network only its inputs are kept, and
//! the backward pass computes it again.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchAutodiffContext, DispatchDevice, DispatchTensor,
    DispatchTensorKind, Flex,
};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor};

use super::plain::cast;

/// What [`recompute`] computes, of a part and its two inputs.
pub(crate) type Forward<M, const D: usize> = fn(&M, Tensor<4>, Tensor<D>) -> Vec<Tensor<4>>;

/// `forward(part, x, with)`, of which nothing but the inputs is kept for the backward pass. With
/// nothing on the tape it is just called.
pub(crate) fn recompute<M, const D: usize>(
    part: &M,
    x: Tensor<4>,
    with: Tensor<D>,
    forward: Forward<M, D>,
) -> Vec<Tensor<4>>
where
    M: Module + Clone + Send + Debug + 'static,
{
    match x.device().inner().as_dispatch() {
        DispatchDevice::Flex(_) => recompute_on::<Flex, M, D>(part, x, with, forward),
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        DispatchDevice::Cube(_) => {
            recompute_on::<burn::backend::Cube, M, D>(part, x, with, forward)
        }
        #[allow(
            unreachable_patterns,
            reason = "depends on the features of other crates"
        )]
        _ => forward(part, x, with),
    }
}

/// A backend's place among those that Burn was built with.
trait Place: Backend {
    /// The backend's tensor, which `kind` is known to hold.
    fn take(kind: DispatchTensorKind) -> BackendTensor<Self>;
    /// The other way round.
    fn put(tensor: BackendTensor<Self>) -> DispatchTensorKind;
}

macro_rules! place {
    ($backend:ty, $variant:ident) => {
        impl Place for $backend {
            fn take(kind: DispatchTensorKind) -> BackendTensor<Self> {
                match kind {
                    DispatchTensorKind::$variant(tensor) => tensor,
                    other => unreachable!("a tensor of another device: {other:?}"),
                }
            }

            fn put(tensor: BackendTensor<Self>) -> DispatchTensorKind {
                DispatchTensorKind::$variant(tensor)
            }
        }
    };
}

place!(Flex, Flex);
#[cfg(any(feature = "wgpu", feature = "cuda"))]
place!(burn::backend::Cube, Cube);

/// A tensor of the tape.
type Node<B> = FloatTensor<Autodiff<B>>;

/// The value of a tensor, and its node where gradients are wanted.
fn open<B: Place, const D: usize>(tensor: Tensor<D>) -> (FloatTensor<B>, Option<Node<B>>) {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Autodiff(inner) => {
            let node = B::take(*inner).autodiff();
            (node.primitive().clone(), node.is_tracked().then_some(node))
        }
        plain => (B::take(plain).float(), None),
    }
}

/// A tensor off the tape.
fn constant<B: Place, const D: usize>(value: FloatTensor<B>) -> Tensor<D> {
    Tensor::from_dispatch(DispatchTensor {
        kind: B::put(BackendTensor::Float(value)),
        autodiff: DispatchAutodiffContext::Disabled,
    })
}

/// A leaf of a new tape.
fn leaf<B: Place, const D: usize>(value: FloatTensor<B>, tracked: bool) -> Tensor<D> {
    let value = constant::<B, D>(value);
    match tracked {
        true => value.autodiff().require_grad(),
        false => value,
    }
}

/// What the backward pass starts from.
struct Kept<B: Backend, M, const D: usize> {
    /// Off the tape.
    part: M,
    /// The parameters on the tape, and their nodes there.
    params: Vec<(ParamId, NodeId)>,
    x: FloatTensor<B>,
    with: FloatTensor<B>,
    forward: Forward<M, D>,
}

impl<B: Backend, M: Clone, const D: usize> Clone for Kept<B, M, D> {
    fn clone(&self) -> Self {
        Self {
            part: self.part.clone(),
            params: self.params.clone(),
            x: self.x.clone(),
            with: self.with.clone(),
            forward: self.forward,
        }
    }
}

impl<B: Backend, M, const D: usize> Debug for Kept<B, M, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("params", &self.params)
            .finish()
    }
}

fn recompute_on<B: Place, M, const D: usize>(
    part: &M,
    x: Tensor<4>,
    with: Tensor<D>,
    forward: Forward<M, D>,
) -> Vec<Tensor<4>>
where
    M: Module + Clone + Send + Debug + 'static,
{
    let context = x.clone().into_dispatch().autodiff;
    let context = context.merge(with.clone().into_dispatch().autodiff);
    let (x, x_node) = open::<B, 4>(x);
    let (with, with_node) = open::<B, D>(with);
    let mut tracked = Tracked::<B>::default();
    part.visit(&mut tracked);
    // A parameter stands for all where neither input is on the tape.
    let anchor = tracked.first;
    if x_node.is_none() && with_node.is_none() && anchor.is_none() {
        return forward(part, constant::<B, 4>(x), constant::<B, D>(with));
    }
    let part = part.clone().map(&mut Detach);
    let outputs = forward(
        &part,
        constant::<B, 4>(x.clone()),
        constant::<B, D>(with.clone()),
    );
    let kinds: Vec<_> = outputs.iter().map(|x| (x.dims(), x.dtype())).collect();
    let joined = join(outputs);
    let nodes = [x_node, with_node, anchor].map(|node| match node {
        Some(node) => node.node(),
        None => Node::<B>::new(x.clone()).node(),
    });
    let kept = Kept {
        part,
        params: tracked.params,
        x,
        with,
        forward,
    };
    let (value, _) = open::<B, 1>(joined);
    let step = Step::<B, M, D>(PhantomData)
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful();
    let node = match step {
        OpsKind::Tracked(step) => step.finish(kept, value),
        OpsKind::UnTracked(step) => step.finish(value),
    };
    let kind = B::put(BackendTensor::Autodiff(node));
    let context = match context {
        DispatchAutodiffContext::Disabled => tracked.context,
        context => context,
    };
    let joined = Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(kind)),
        autodiff: context,
    });
    split(joined, &kinds)
}

/// All values one after another, as the tape's steps have one result; several in float32, as they may
/// be in different formats.
fn join(mut outputs: Vec<Tensor<4>>) -> Tensor<1> {
    if outputs.len() == 1 {
        return outputs.remove(0).flatten(0, 3);
    }
    let flat = |x: Tensor<4>| cast(x, DType::F32).flatten(0, 3);
    Tensor::cat(outputs.into_iter().map(flat).collect(), 0)
}

/// The other way round.
fn split(joined: Tensor<1>, kinds: &[([usize; 4], DType)]) -> Vec<Tensor<4>> {
    if let [(shape, _)] = kinds {
        return vec![joined.reshape(*shape)];
    }
    let mut start = 0;
    let mut outputs = Vec::new();
    for (shape, format) in kinds {
        let len = shape.iter().product();
        let one = joined.clone().narrow(0, start, len).reshape(*shape);
        outputs.push(cast(one, *format));
        start += len;
    }
    outputs
}

#[derive(Debug)]
struct Step<B, M, const D: usize>(PhantomData<(B, M)>);

impl<B: Place, M, const D: usize> Backward<B, 3> for Step<B, M, D>
where
    M: Module + Clone + Send + Debug + 'static,
{
    type State = Kept<B, M, D>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = constant::<B, 1>(grads.consume::<B>(&ops.node));
        let [x_parent, with_parent, _] = ops.parents;
        let kept = ops.state;
        // A tape of its own: the outer one is locked while it is walked.
        let x = leaf::<B, 4>(kept.x, x_parent.is_some());
        let with = leaf::<B, D>(kept.with, with_parent.is_some());
        let part = kept.part.map(&mut Track {
            params: &kept.params,
        });
        let joined = join((kept.forward)(&part, x.clone(), with.clone()));
        let mut inner = (joined * grad).sum().backward();
        if let (Some(parent), Some(grad)) = (x_parent, x.grad_remove(&mut inner)) {
            grads.register::<B>(parent.id, open::<B, 4>(grad).0);
        }
        if let (Some(parent), Some(grad)) = (with_parent, with.grad_remove(&mut inner)) {
            grads.register::<B>(parent.id, open::<B, D>(grad).0);
        }
        part.visit(&mut Register::<B> {
            params: &kept.params,
            inner,
            outer: grads,
            backend: PhantomData,
        });
    }
}

/// Finds the parameters on the tape.
struct Tracked<B: Backend> {
    params: Vec<(ParamId, NodeId)>,
    first: Option<Node<B>>,
    context: DispatchAutodiffContext,
}

impl<B: Backend> Default for Tracked<B> {
    fn default() -> Self {
        Self {
            params: Vec::new(),
            first: None,
            context: DispatchAutodiffContext::Disabled,
        }
    }
}

impl<B: Place> ModuleVisitor for Tracked<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let context = value.clone().into_dispatch().autodiff;
        if let (_, Some(node)) = open::<B, D>(value) {
            self.params.push((param.id, node.node().id()));
            self.context = context;
            self.first.get_or_insert(node);
        }
    }
}

/// Takes all parameters off the tape.
struct Detach;

impl ModuleMapper for Detach {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(param.id, param.val().inner())
    }
}

/// Puts the given parameters on a new tape.
struct Track<'a> {
    params: &'a [(ParamId, NodeId)],
}

impl ModuleMapper for Track<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.params.iter().any(|(id, _)| *id == param.id) {
            return param;
        }
        let value = param.val().autodiff().require_grad();
        Param::initialized(param.id, value)
    }
}

/// Hands the parameters' gradients from the inner tape to the outer one.
struct Register<'a, B> {
    params: &'a [(ParamId, NodeId)],
    inner: burn::tensor::Gradients,
    outer: &'a mut Gradients,
    backend: PhantomData<B>,
}

impl<B: Place> ModuleVisitor for Register<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((_, node)) = self.params.iter().find(|(id, _)| *id == param.id) else {
            return;
        };
        if let Some(grad) = param.val().grad_remove(&mut self.inner) {
            self.outer.register::<B>(*node, open::<B, D>(grad).0);
        }
    }
}
