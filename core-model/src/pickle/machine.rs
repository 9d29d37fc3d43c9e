//! The part of Python's pickle machine that describes tensors and plain containers. Nothing is
//! imported and nothing is called: what a name outside of the table makes is an unknown object,
//! which is skipped with everything in it.

use std::collections::{BTreeSet, HashMap};

/// Values that one pickle may make; an embedding has some dozens.
const MOST_VALUES: usize = 1 << 20;

/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

/// A value's place among all values of a pickle. Containers hold places, so that a value that
/// occurs a million times is stored once.
pub(super) type Id = usize;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A known name, `module.name`.
    Known(Known),
    /// Numbers of one kind in a file of the archive.
    Storage(Storage),
    Tensor(StoredTensor),
    /// A name that is not understood, or what it would have made.
    Unknown,
}

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    OrderedDict,
    ParameterDict,
    Set,
    RebuildTensor,
    RebuildParameter,
    Numbers(Numbers),
}

/// The kinds of numbers of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    Float16,
    BFloat16,
    Float32,
    Float64,
    Int32,
    Int64,
    Int16,
    Int8,
    UInt8,
    Bool,
}

impl Numbers {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Int8 | Self::UInt8 | Self::Bool => 1,
            Self::Float16 | Self::BFloat16 | Self::Int16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Float64 | Self::Int64 => 8,
        }
    }
}

/// The names that are understood, and nothing else is.
const KNOWN: [(&str, &str, Known); 16] = [
    // Modules have empty sets of names; Python 2 called the module otherwise.
    ("builtins", "set", Known::Set),
    ("__builtin__", "set", Known::Set),
    ("collections", "OrderedDict", Known::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Known::RebuildTensor),
    (
        "torch._utils",
        "_rebuild_parameter",
        Known::RebuildParameter,
    ),
    (
        "torch.nn.modules.container",
        "ParameterDict",
        Known::ParameterDict,
    ),
    ("torch", "HalfStorage", Known::Numbers(Numbers::Float16)),
    (
        "torch",
        "BFloat16Storage",
        Known::Numbers(Numbers::BFloat16),
    ),
    ("torch", "FloatStorage", Known::Numbers(Numbers::Float32)),
    ("torch", "DoubleStorage", Known::Numbers(Numbers::Float64)),
    ("torch", "IntStorage", Known::Numbers(Numbers::Int32)),
    ("torch", "LongStorage", Known::Numbers(Numbers::Int64)),
    ("torch", "ShortStorage", Known::Numbers(Numbers::Int16)),
    ("torch", "CharStorage", Known::Numbers(Numbers::Int8)),
    ("torch", "ByteStorage", Known::Numbers(Numbers::UInt8)),
    ("torch", "BoolStorage", Known::Numbers(Numbers::Bool)),
];

/// Numbers in the archive's file `data/KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) numbers: Numbers,
    pub(super) key: String,
}

/// A view of a storage; offset and strides in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredTensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Values {
    all: Vec<Value>,
    root: Id,
    /// The names that are not understood, as `module.name`, sorted.
    pub(super) unknown: BTreeSet<String>,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.all[id]
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The bytes of one number of every storage.
    pub(super) fn widths(&self) -> HashMap<&str, usize> {
        let storages = self.all.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((storage.key.as_str(), storage.numbers.size())),
            _ => None,
        });
        storages.collect()
    }
}

/// Reads a pickle of protocol 0 to 5.
///
/// # Errors
/// In words: the operation that is not accepted, or that the pickle is damaged.
#[cfg(test)]
pub(super) fn unpickle(bytes: &[u8]) -> Result<Values, String> {
    Ok(unpickle_first(bytes)?.0)
}

/// The same for the first of several pickles, with the bytes behind it.
///
/// # Errors
/// As `unpickle`.
pub(super) fn unpickle_first(bytes: &[u8]) -> Result<(Values, &[u8]), String> {
    let mut machine = Machine {
        input: bytes,
        all: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        unknown: BTreeSet::new(),
    };
    let root = machine.run()?;
    let values = Values {
        all: machine.all,
        root,
        unknown: machine.unknown,
    };
    Ok((values, machine.input))
}

struct Machine<'a> {
    input: &'a [u8],
    all: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    unknown: BTreeSet<String>,
}

const CUT: &str = "the pickle is cut off or damaged";

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let [operation] = self.take()?;
            if operation == b'.' {
                return self.pop();
            }
            let understood = self.value(operation)?
                || self.container(operation)?
                || self.memory(operation)?
                || self.object(operation)?;
            if !understood {
                return Err(format!(
                    "pickle operation 0x{operation:02x} is not accepted: only tensors and plain \
                     containers are read"
                ));
            }
        }
    }

    /// Operations that push a number, a text or bytes; whether this is one of them.
    fn value(&mut self, operation: u8) -> Result<bool, String> {
        let value = match operation {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.take()?))),
            b'K' => Value::Int(i64::from(self.take::<1>()?[0])),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.take()?))),
            0x8a => {
                let [length] = self.take()?;
                long(self.bytes(length as usize)?)
            }
            0x8b => {
                let length = u32::from_le_bytes(self.take()?);
                long(self.bytes(length as usize)?)
            }
            b'G' => Value::Float(f64::from_be_bytes(self.take()?)),
            b'I' | b'L' | b'F' | b'V' | b'S' => written(operation, &self.line()?),
            b'X' | b'T' | 0x8d | 0x8c | b'U' => {
                let length = self.length(operation)?;
                let bytes = self.bytes(length)?.to_vec();
                // Texts of Python 2 may be bytes of any kind.
                String::from_utf8(bytes).map_or(Value::Unknown, Value::Text)
            }
            // Bytes are of no use here.
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = self.length(operation)?;
                self.bytes(length)?;
                Value::Unknown
            }
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    /// The length of the text or the bytes that follow.
    fn length(&mut self, operation: u8) -> Result<usize, String> {
        let length = match operation {
            b'U' | b'C' | 0x8c => u64::from(self.take::<1>()?[0]),
            b'X' | b'T' | b'B' => u64::from(u32::from_le_bytes(self.take()?)),
            _ => u64::from_le_bytes(self.take()?),
        };
        usize::try_from(length).map_err(|_| CUT.to_string())
    }

    /// Operations that make or fill tuples, lists and dictionaries.
    fn container(&mut self, operation: u8) -> Result<bool, String> {
        match operation {
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(items)?;
            }
            0x85..=0x87 => {
                let count = usize::from(operation - 0x84);
                let first = self.stack.len().checked_sub(count).ok_or(CUT)?;
                let items = self.stack.split_off(first);
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Operations on the stack and its memory, and those that say how to read.
    fn memory(&mut self, operation: u8) -> Result<bool, String> {
        let place = |line: String| line.parse::<u64>().map_err(|_| CUT.to_string());
        match operation {
            0x80 => {
                let [protocol] = self.take()?;
                if protocol > 5 {
                    return Err(format!("pickle protocol {protocol}, expected 0 to 5"));
                }
            }
            0x95 => drop(self.take::<8>()?),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or(CUT)?;
                self.push_again(top)?;
            }
            b'q' => {
                let [place] = self.take()?;
                self.remember(u64::from(place))?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.take()?);
                self.remember(u64::from(place))?;
            }
            b'p' => {
                let place = place(self.line()?)?;
                self.remember(place)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let [place] = self.take()?;
                self.recall(u64::from(place))?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.take()?);
                self.recall(u64::from(place))?;
            }
            b'g' => {
                let place = place(self.line()?)?;
                self.recall(place)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Operations that name, make or fill objects.
    fn object(&mut self, operation: u8) -> Result<bool, String> {
        match operation {
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.name(&module, &name)?;
            }
            0x93 => {
                let name = self.pop_text()?;
                let module = self.pop_text()?;
                self.name(&module, &name)?;
            }
            b'Q' => {
                let about = self.pop()?;
                let storage = self.storage(about)?;
                self.push(storage)?;
            }
            // REDUCE calls and NEWOBJ makes; here both build one of the known things.
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let value = self.build(function, arguments)?;
                self.push(value)?;
            }
            // NEWOBJ_EX has arguments by name too, which nothing known has.
            0x92 => {
                for _ in 0..3 {
                    self.pop()?;
                }
                self.push(Value::Unknown)?;
            }
            // INST and OBJ, the old ways to make an object.
            b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                self.since_mark()?;
                self.unknown(&module, &name);
                self.push(Value::Unknown)?;
            }
            b'o' => {
                self.since_mark()?;
                self.push(Value::Unknown)?;
            }
            b'b' => self.state()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8], String> {
        let (bytes, rest) = self.input.split_at_checked(count).ok_or(CUT)?;
        self.input = rest;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.input.split_first_chunk().ok_or(CUT)?;
        self.input = rest;
        Ok(*bytes)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        let line = self.bytes(end.ok_or(CUT)?)?.to_vec();
        self.take::<1>()?;
        String::from_utf8(line).map_err(|_| CUT.to_string())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.all.len() == MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        self.stack.push(self.all.len());
        self.all.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.stack.pop().ok_or(CUT)?)
    }

    fn pop_text(&mut self) -> Result<String, String> {
        let id = self.pop()?;
        match &self.all[id] {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(CUT.into()),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or(CUT)?;
        if mark > self.stack.len() {
            return Err(CUT.into());
        }
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Value, String> {
        let id = *self.stack.last().ok_or(CUT)?;
        Ok(&mut self.all[id])
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            Value::Unknown => {}
            _ => return Err(CUT.into()),
        }
        Ok(())
    }

    /// Keys and values in turn.
    fn set(&mut self, items: Vec<Id>) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(CUT.into());
        }
        match self.top()? {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Value::Unknown => {}
            _ => return Err(CUT.into()),
        }
        Ok(())
    }

    fn remember(&mut self, place: u64) -> Result<(), String> {
        let id = *self.stack.last().ok_or(CUT)?;
        self.memo.insert(place, id);
        if self.memo.len() > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<(), String> {
        let id = *self.memo.get(&place).ok_or(CUT)?;
        self.push_again(id)
    }

    fn push_again(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = KNOWN.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        match known {
            Some((_, _, known)) => self.push(Value::Known(*known)),
            None => {
                self.unknown(module, name);
                self.push(Value::Unknown)
            }
        }
    }

    fn unknown(&mut self, module: &str, name: &str) {
        self.unknown.insert(format!("{module}.{name}"));
    }

    fn tuple(&self, id: Id) -> Result<&[Id], String> {
        match &self.all[id] {
            Value::Tuple(items) => Ok(items),
            _ => Err(CUT.into()),
        }
    }

    fn count(&self, id: Id) -> Result<usize, String> {
        match &self.all[id] {
            Value::Int(value) => usize::try_from(*value).map_err(|_| CUT.to_string()),
            _ => Err(CUT.into()),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<usize>, String> {
        self.tuple(id)?.iter().map(|id| self.count(*id)).collect()
    }

    /// `('storage', kind, key, location, count)`, and in files of before 1.6 a view of that, which
    /// torch has not written for long.
    fn storage(&self, id: Id) -> Result<Value, String> {
        let [tag, kind, key, more @ ..] = self.tuple(id)? else {
            return Err(CUT.into());
        };
        if more
            .get(2)
            .is_some_and(|view| self.all[*view] != Value::None)
        {
            return Err("it holds views of storages, as torch wrote before 0.4".into());
        }
        match (&self.all[*tag], &self.all[*kind], &self.all[*key]) {
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

    fn build(&self, function: Id, arguments: Id) -> Result<Value, String> {
        let function = match self.all[function] {
            Value::Known(function) => function,
            Value::Unknown => return Ok(Value::Unknown),
            _ => return Err("it calls something that is not a name".into()),
        };
        let arguments = self.tuple(arguments)?;
        match (function, arguments) {
            (Known::OrderedDict | Known::ParameterDict, []) => Ok(Value::Dict(Vec::new())),
            (Known::OrderedDict, [pairs]) => self.ordered(*pairs),
            (Known::RebuildTensor, [storage, ..]) if self.all[*storage] == Value::Unknown => {
                Ok(Value::Unknown)
            }
            (Known::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Value::Storage(storage) = &self.all[*storage] else {
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
            (Known::Set, [items]) => match &self.all[*items] {
                Value::List(items) => Ok(Value::List(items.clone())),
                _ => Err(CUT.into()),
            },
            (Known::RebuildParameter, [tensor, ..]) => match &self.all[*tensor] {
                Value::Tensor(tensor) => Ok(Value::Tensor(tensor.clone())),
                Value::Unknown => Ok(Value::Unknown),
                _ => Err(CUT.into()),
            },
            _ => Err(CUT.into()),
        }
    }

    /// An `OrderedDict` of a list of pairs, as Python 2 wrote it.
    fn ordered(&self, pairs: Id) -> Result<Value, String> {
        let Value::List(pairs) = &self.all[pairs] else {
            return Err(CUT.into());
        };
        let pair = |id: &Id| match &self.all[*id] {
            Value::List(items) | Value::Tuple(items) if items.len() == 2 => {
                Ok((items[0], items[1]))
            }
            _ => Err(CUT.to_string()),
        };
        Ok(Value::Dict(
            pairs.iter().map(pair).collect::<Result<_, _>>()?,
        ))
    }

    /// The attributes of an object: of a `ParameterDict` the parameters are among them, those of
    /// anything else mean nothing here.
    fn state(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let attributes = match self.all[state].clone() {
            Value::Dict(attributes) => attributes,
            _ => Vec::new(),
        };
        let parameters = attributes.iter().find_map(|(key, value)| {
            let named = self.all[*key] == Value::Text("_parameters".into());
            named.then_some(*value)
        });
        let entries = match parameters.map(|id| self.all[id].clone()) {
            Some(Value::Dict(entries)) => entries,
            _ => Vec::new(),
        };
        match self.top()? {
            Value::Dict(dict) => dict.extend(entries),
            Value::Unknown => {}
            _ => return Err(CUT.into()),
        }
        Ok(())
    }
}

/// An integer, little-endian two's complement; a longer one than eight bytes is of no use here.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Unknown;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

/// A value that protocol 0 writes as a line of text.
fn written(operation: u8, line: &str) -> Value {
    let number = line.trim_end_matches('L');
    let value = match operation {
        b'I' if line == "00" || line == "01" => Some(Value::Bool(line == "01")),
        b'I' | b'L' => number.parse().ok().map(Value::Int),
        b'F' => line.parse().ok().map(Value::Float),
        b'S' => {
            let quoted = line.trim_matches(['\'', '"']);
            (!quoted.contains('\\')).then(|| Value::Text(quoted.into()))
        }
        _ => (!line.contains('\\')).then(|| Value::Text(line.into())),
    };
    value.unwrap_or(Value::Unknown)
}
