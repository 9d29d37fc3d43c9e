//! The part of Python's pickle machine that describes tensors and plain containers. Nothing is
//! imported and nothing is called: what a name outside of the table makes is an unknown object,
//! which is skipped with everything in it.

use std::collections::HashMap;

use super::values::{CUT, Id, Known, MOST_VALUES, Value, Values, too_many};

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
        values: Values::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    machine.values.root = machine.run()?;
    Ok((machine.values, machine.input))
}

struct Machine<'a> {
    input: &'a [u8],
    values: Values,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

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
                let storage = self.values.storage(about)?;
                self.push(storage)?;
            }
            // REDUCE calls and NEWOBJ makes; here both build one of the known things.
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let value = self.values.build(function, arguments)?;
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
        let id = self.values.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.stack.pop().ok_or(CUT)?)
    }

    fn pop_text(&mut self) -> Result<String, String> {
        let id = self.pop()?;
        match self.values.get(id) {
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
        Ok(self.values.get_mut(id))
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
            return Err(too_many());
        }
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<(), String> {
        let id = *self.memo.get(&place).ok_or(CUT)?;
        self.push_again(id)
    }

    fn push_again(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() > MOST_VALUES {
            return Err(too_many());
        }
        self.stack.push(id);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        match Known::of(module, name) {
            Some(known) => self.push(Value::Known(known)),
            None => {
                self.unknown(module, name);
                self.push(Value::Unknown)
            }
        }
    }

    fn unknown(&mut self, module: &str, name: &str) {
        self.values.unknown.insert(format!("{module}.{name}"));
    }

    /// Fills an object with its attributes.
    fn state(&mut self) -> Result<(), String> {
        let attributes = self.pop()?;
        let entries = self.values.parameters(attributes);
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
