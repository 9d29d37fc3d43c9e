//! The checkpoint keys of a network's parameters, and what goes by them: reading, changing and
//! choosing what is trained.

use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, FloatDType, Tensor};

/// What a parameter is called in a checkpoint, and its shape there.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// The checkpoint key of every parameter of a network.
#[derive(Debug, Clone, Default)]
pub struct ParamNames(Arc<HashMap<ParamId, Stored>>);

/// A parameter of a module, whatever its number of dimensions.
#[derive(Debug)]
pub struct NamedParam<'a> {
    /// Its key.
    pub name: &'a str,
    /// The shape under which checkpoints hold it.
    pub shape: &'a [usize],
    /// Its values, flattened, off the tape.
    pub value: Tensor<1>,
    /// Whether it is trained.
    pub is_trained: bool,
}

impl ParamNames {
    pub(super) fn new(stored: HashMap<ParamId, Stored>) -> Self {
        Self(Arc::new(stored))
    }

    /// The name of a single parameter.
    pub fn one(id: ParamId, name: &str, shape: Vec<usize>) -> Self {
        let name = name.to_string();
        Self(Arc::new(HashMap::from([(id, Stored { name, shape })])))
    }

    /// The same parameters under other keys.
    #[must_use]
    pub fn renamed(&self, rename: impl Fn(&str) -> String) -> Self {
        Self(Arc::new(
            self.0
                .iter()
                .map(|(id, stored)| {
                    let name = rename(&stored.name);
                    let shape = stored.shape.clone();
                    (*id, Stored { name, shape })
                })
                .collect(),
        ))
    }

    /// The parameters of two networks.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let both = self.0.iter().chain(other.0.iter());
        Self(Arc::new(both.map(|(id, s)| (*id, s.clone())).collect()))
    }

    /// Whether these are the very names of another, and not only equal ones.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The keys of all parameters, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|stored| stored.name.as_str())
    }

    /// The keys of all parameters and their shapes in checkpoints, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let stored = self.0.values();
        stored.map(|stored| (stored.name.as_str(), stored.shape.as_slice()))
    }

    /// The key of a parameter.
    ///
    /// # Panics
    /// When the parameter belongs to another network: a programmer's error.
    pub fn name(&self, id: ParamId) -> &str {
        &self.stored(id).name
    }

    /// The shape under which checkpoints hold a parameter: [out, in, 1, 1] where a 1x1 convolution
    /// is computed as a linear layer, nothing for a number on its own.
    ///
    /// # Panics
    /// As [`name`](Self::name).
    pub fn shape(&self, id: ParamId) -> &[usize] {
        &self.stored(id).shape
    }

    /// Shows every parameter of a module.
    ///
    /// # Panics
    /// As [`name`](Self::name).
    pub fn read<M: Module>(&self, module: &M, each: impl FnMut(NamedParam<'_>)) {
        struct Visitor<'a, F>(&'a ParamNames, F);
        impl<F: FnMut(NamedParam<'_>)> ModuleVisitor for Visitor<'_, F> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Stored { name, shape } = self.0.stored(param.id);
                let value = param.val();
                (self.1)(NamedParam {
                    name,
                    shape,
                    is_trained: value.is_require_grad(),
                    value: flattened(value.inner()),
                });
            }
        }
        module.visit(&mut Visitor(self, each));
    }

    /// The module with other values of the parameters for which `chosen` holds, given their key and
    /// whether they are trained. `change` takes and returns a parameter's values, flattened, off the
    /// tape; the values that it is given are nowhere else in use, where the module's are not. What
    /// is trained stays so.
    ///
    /// # Panics
    /// As [`name`](Self::name); when a changed parameter has another number of values.
    pub fn map<M: Module>(
        &self,
        module: M,
        chosen: impl Fn(&str, bool) -> bool,
        change: impl FnMut(&str, Tensor<1>) -> Tensor<1>,
    ) -> M {
        struct Mapper<'a, C, F>(&'a ParamNames, C, F);
        impl<C, F> ModuleMapper for Mapper<'_, C, F>
        where
            C: Fn(&str, bool) -> bool,
            F: FnMut(&str, Tensor<1>) -> Tensor<1>,
        {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (id, value) = (param.id, param.val());
                let (name, is_trained) = (self.0.name(id), value.is_require_grad());
                if !(self.1)(name, is_trained) {
                    return param;
                }
                drop(param);
                let shape = value.dims();
                let value = (self.2)(name, flattened(value.inner())).reshape(shape);
                let value = match is_trained {
                    true => value.autodiff().require_grad(),
                    false => value,
                };
                Param::initialized(id, value)
            }
        }
        module.map(&mut Mapper(self, chosen, change))
    }

    fn stored(&self, id: ParamId) -> &Stored {
        match self.0.get(&id) {
            Some(stored) => stored,
            None => panic!("parameter {id} is not of this network"),
        }
    }
}

fn flattened<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let length = tensor.shape().num_elements();
    tensor.reshape([length])
}

/// Whether any parameter of the module is trained.
pub fn is_trained<M: Module>(module: &M) -> bool {
    struct Visitor(bool);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_require_grad();
        }
    }
    let mut visitor = Visitor(false);
    module.visit(&mut visitor);
    visitor.0
}

/// Makes the parameters whose key satisfies `chosen` trainable and freezes all others.
///
/// Frozen parameters live off the autodiff tape: gradients still flow through the network to
/// whatever input is tracked.
pub fn set_trainable<M: Module>(module: M, names: &ParamNames, chosen: impl Fn(&str) -> bool) -> M {
    struct Chooser<'a, F> {
        names: &'a ParamNames,
        chosen: F,
    }
    impl<F: Fn(&str) -> bool> ModuleMapper for Chooser<'_, F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let tensor = param.val().inner();
            let trainable = (self.chosen)(self.names.name(param.id));
            let tensor = if trainable {
                // What is trained is trained in float32.
                let wide = match tensor.dtype() {
                    DType::F16 | DType::BF16 => tensor.cast(FloatDType::F32),
                    _ => tensor,
                };
                wide.autodiff().require_grad()
            } else {
                tensor
            };
            Param::initialized(param.id, tensor)
        }
    }
    module.map(&mut Chooser { names, chosen })
}
