//! What the known names make of their arguments: storages, tensors and containers.

use super::values::{CUT, Id, Known, Storage, StoredTensor, Value, Values};

/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

impl Values {
    /// `('storage', kind, key, location, count)`, and in files of before 1.6 a view of that, which
    /// torch has not written for long.
    pub(super) fn storage(&self, id: Id) -> Result<Value, String> {
        let [tag, kind, key, more @ ..] = self.tuple(id)? else {
            return Err(CUT.into());
        };
        if more
            .get(2)
            .is_some_and(|view| self.get(*view) != &Value::None)
        {
            return Err("it holds views of storages, as torch wrote before 0.4".into());
        }
        match (self.get(*tag), self.get(*kind), self.get(*key)) {
            (Value::Text(tag), Value::Known(Known::Numbers(numbers)), Value::Text(key))
                if tag == "storage" =>
            {
                Ok(Value::Storage(Storage {
                    numbers: *numbers,
                    key: key.clone(),
                }))
            }
            (Value::Text(tag), Value::Unknown, _) if tag == "storage" => Ok(Value::Unknown),
            _ => Err(CUT.into()),
        }
    }

    /// What a call of a known name makes.
    pub(super) fn build(&self, function: Id, arguments: Id) -> Result<Value, String> {
        let function = match self.get(function) {
            Value::Known(function) => *function,
            Value::Unknown => return Ok(Value::Unknown),
            _ => return Err("it calls something that is not a name".into()),
        };
        let arguments = self.tuple(arguments)?;
        match (function, arguments) {
            (Known::OrderedDict | Known::ParameterDict, []) => Ok(Value::Dict(Vec::new())),
            (Known::OrderedDict, [pairs]) => self.ordered(*pairs),
            (Known::RebuildTensor, [storage, ..]) if self.get(*storage) == &Value::Unknown => {
                Ok(Value::Unknown)
            }
            (Known::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Value::Storage(storage) = self.get(*storage) else {
                    return Err(CUT.into());
                };
                let tensor = StoredTensor {
                    storage: storage.clone(),
                    offset: self.count(*offset)?,
                    shape: self.counts(*shape)?,
                    strides: self.counts(*strides)?,
                };
                let dimensions = tensor.shape.len();
                if dimensions != tensor.strides.len() || dimensions > MOST_DIMENSIONS {
                    return Err(CUT.into());
                }
                Ok(Value::Tensor(tensor))
            }
            (Known::Set, [items]) => match self.get(*items) {
                Value::List(items) => Ok(Value::List(items.clone())),
                _ => Err(CUT.into()),
            },
            (Known::RebuildParameter, [tensor, ..]) => match self.get(*tensor) {
                Value::Tensor(tensor) => Ok(Value::Tensor(tensor.clone())),
                Value::Unknown => Ok(Value::Unknown),
                _ => Err(CUT.into()),
            },
            _ => Err(CUT.into()),
        }
    }

    /// An `OrderedDict` of a list of pairs, as Python 2 wrote it.
    fn ordered(&self, pairs: Id) -> Result<Value, String> {
        let Value::List(pairs) = self.get(pairs) else {
            return Err(CUT.into());
        };
        let pair = |id: &Id| match self.get(*id) {
            Value::List(items) | Value::Tuple(items) if items.len() == 2 => {
                Ok((items[0], items[1]))
            }
            _ => Err(CUT.to_string()),
        };
        Ok(Value::Dict(
            pairs.iter().map(pair).collect::<Result<_, _>>()?,
        ))
    }

    /// The entries that an object's attributes add to it: of a `ParameterDict` the parameters are among
    /// them, those of anything else mean nothing here.
    pub(super) fn parameters(&self, attributes: Id) -> Vec<(Id, Id)> {
        let Value::Dict(attributes) = self.get(attributes) else {
            return Vec::new();
        };
        let parameters = attributes.iter().find_map(|(key, value)| {
            let named = self.get(*key) == &Value::Text("_parameters".into());
            named.then(|| self.get(*value))
        });
        match parameters {
            Some(Value::Dict(entries)) => entries.clone(),
            _ => Vec::new(),
        }
    }
}
