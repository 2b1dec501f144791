//! The stack machine of pickles, as far as dictionaries of tensors use it (`pickletools` documents the instructions).
//!
//! Values are shared, never copied, and texts and bytes are parts of the program, so a short program cannot make much of
//! little; what a dictionary holds beside tensors is forgotten at once, and tuples nest only so deep, so it cannot make deep
//! structures either. How many instructions are run is limited, and with it what lies on the stack and in the memo.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use safetensors::Dtype;

use super::legacy;
use super::opcode;
use super::value::{Described, Global, Place, Value, global, size, tensor, tuple};

/// Instructions that a file may have in all: a hundred times those of the largest models, and some hundred megabytes where all
/// of them leave something behind.
pub(super) const STEPS: usize = 1 << 22;

/// What a program may reach for beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Storages by key.
    Keys,
    /// Storages in streams of bytes inside the program, of a file that is one pickle.
    Bytes,
}

/// A program that ended: the value on top, and what is needed to read it.
pub(super) struct Ran<'a> {
    result: Value<'a>,
    dictionaries: Vec<Vec<(Option<&'a str>, Value<'a>)>>,
    lists: Vec<Vec<Value<'a>>>,
    /// Storages that were asked for by key: type, and number of elements.
    pub(super) storages: HashMap<&'a str, (Dtype, usize)>,
    /// Where in the file the program ended.
    pub(super) end: usize,
}

/// Runs the program that starts at `start`, taking from `steps` as many as it has instructions.
pub(super) fn run<'a>(program: &'a [u8], start: usize, reach: Reach, steps: &Cell<usize>) -> Result<Ran<'a>, String> {
    let mut machine = Machine {
        program,
        at: start,
        reach,
        steps,
        stack: Vec::new(),
        memo: HashMap::new(),
        dictionaries: Vec::new(),
        lists: Vec::new(),
        storages: HashMap::new(),
        streams: HashMap::new(),
    };
    loop {
        steps.set(steps.get().checked_sub(1).ok_or_else(|| format!("its program has more than {STEPS} instructions"))?);
        if let Some(result) = machine.step()? {
            let Machine { dictionaries, lists, storages, at, .. } = machine;
            return Ok(Ran { result, dictionaries, lists, storages, end: at });
        }
    }
}

impl<'a> Ran<'a> {
    /// The tensors of the dictionary that it made, in its order.
    pub(super) fn tensors(mut self) -> Result<Vec<(&'a str, Described<'a>)>, String> {
        let Value::Dictionary(number) = self.result else {
            return Err("it holds no dictionary of tensors".to_owned());
        };
        let mut seen = HashSet::new();
        let tensor = |(name, value): (Option<&'a str>, Value<'a>)| match (name, value) {
            (None, _) => Err("a key of its dictionary is no text".to_owned()),
            (Some(name), Value::Tensor(_)) if !seen.insert(name) => Err(format!("{name:?} is in it twice")),
            (Some(name), Value::Tensor(tensor)) => Ok((name, (*tensor).clone())),
            (Some(name), _) => Err(format!("{name:?} in it is no tensor: it is more than a dictionary of tensors")),
        };
        std::mem::take(&mut self.dictionaries[number]).into_iter().map(tensor).collect()
    }

    /// The number that it made, if it is one of more than 64 bits: its bytes.
    pub(super) fn long(&self) -> Option<&'a [u8]> {
        if let Value::Long(bytes) = self.result { Some(bytes) } else { None }
    }

    /// The number that it made, if it is one.
    pub(super) fn number(&self) -> Option<i64> {
        if let Value::Number(number) = self.result { Some(number) } else { None }
    }

    /// What the dictionary that it made says under a name, where that is true or false.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let Value::Dictionary(number) = self.result else { return None };
        self.dictionaries[number].iter().find_map(|(key, value)| match value {
            Value::Flag(flag) if *key == Some(name) => Some(*flag),
            _ => None,
        })
    }

    /// The texts of the list that it made, if it is one of texts.
    pub(super) fn texts(&self) -> Option<Vec<&'a str>> {
        let Value::List(number) = self.result else { return None };
        let text = |value: &Value<'a>| if let Value::Text(text) = value { Some(*text) } else { None };
        self.lists[number].iter().map(text).collect()
    }

    /// The storage that it made, if it is one.
    pub(super) fn storage(&self) -> Option<(Place<'a>, Dtype)> {
        if let Value::Storage(place, dtype) = &self.result { Some((place.clone(), *dtype)) } else { None }
    }
}

struct Machine<'a, 's> {
    program: &'a [u8],
    at: usize,
    reach: Reach,
    steps: &'s Cell<usize>,
    stack: Vec<Value<'a>>,
    memo: HashMap<usize, Value<'a>>,
    dictionaries: Vec<Vec<(Option<&'a str>, Value<'a>)>>,
    lists: Vec<Vec<Value<'a>>>,
    storages: HashMap<&'a str, (Dtype, usize)>,
    /// Streams that were read, by where they start: none is read twice.
    streams: HashMap<usize, (Dtype, Range<usize>)>,
}

impl<'a> Machine<'a, '_> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.program.len());
        let bytes = &self.program[self.at..end.ok_or("its program is truncated")?];
        self.at += count;
        Ok(bytes)
    }

    fn number(&mut self, size: usize) -> Result<usize, String> {
        let number = self.bytes(size)?.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| "a length in it is too large for this machine".to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        // A name is short; what goes on for longer is none.
        let rest = &self.program[self.at..self.program.len().min(self.at + 256)];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("its program is truncated")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name in it is not UTF-8".to_owned())
    }

    fn text(&mut self, size: usize) -> Result<Value<'a>, String> {
        let length = self.number(size)?;
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| "a text in it is not UTF-8")?;
        Ok(Value::Text(text))
    }

    fn literal(&mut self, size: usize) -> Result<Value<'a>, String> {
        let length = self.number(size)?;
        let start = self.at;
        self.bytes(length)?;
        Ok(Value::Bytes(start..self.at))
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.stack.pop().ok_or_else(|| "its program takes what is not there".to_owned())
    }

    /// What lies above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let above = self.stack.split_off(mark.ok_or("its program lacks a mark")? + 1);
        self.stack.pop();
        Ok(above)
    }

    fn last(&self, count: usize) -> Result<usize, String> {
        self.stack.len().checked_sub(count).ok_or_else(|| "its program takes what is not there".to_owned())
    }

    /// One instruction; the result at the last.
    fn step(&mut self) -> Result<Option<Value<'a>>, String> {
        let instruction = self.bytes(1)?[0];
        let value = match instruction {
            // PROTO, FRAME: how the program is laid out.
            0x80 => return self.bytes(1).map(|_| None),
            0x95 => return self.bytes(8).map(|_| None),
            b'.' => return self.pop().map(Some),
            b'(' => Value::Mark,
            b'N' => Value::Opaque,
            // NEWTRUE, NEWFALSE
            0x88 | 0x89 => Value::Flag(instruction == 0x88),
            b']' => {
                self.lists.push(Vec::new());
                Value::List(self.lists.len() - 1)
            }
            // BINFLOAT
            b'G' => self.bytes(8).map(|_| Value::Opaque)?,
            // BININT, BININT1, BININT2, LONG1
            b'J' => Value::Number(i64::from(self.number(4)? as u32 as i32)),
            b'K' => Value::Number(self.number(1)? as i64),
            b'M' => Value::Number(self.number(2)? as i64),
            0x8a => self.long()?,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8
            b'C' => self.literal(1)?,
            b'B' => self.literal(4)?,
            0x8e => self.literal(8)?,
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => tuple(Vec::new())?,
            b't' => tuple(self.pop_to_mark()?)?,
            0x85..=0x87 => {
                let first = self.last(usize::from(instruction - 0x84))?;
                tuple(self.stack.split_off(first))?
            }
            b'}' => self.dictionary(),
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                global(module, name)?
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => global(module, name)?,
                _ => return Err("its program names something by what is no text".to_owned()),
            },
            b'R' => self.call()?,
            // BINPERSID
            b'Q' => self.storage()?,
            // BINGET, LONG_BINGET
            b'h' | b'j' => {
                let place = self.number(if instruction == b'h' { 1 } else { 4 })?;
                self.memo.get(&place).cloned().ok_or("its program recalls what it did not remember")?
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' | b'r' | 0x94 => {
                let place = match instruction {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    _ => self.memo.len(),
                };
                let top = self.stack[self.last(1)?].clone();
                self.memo.insert(place, top);
                return Ok(None);
            }
            // SETITEM, SETITEMS
            b's' => {
                let first = self.last(2)?;
                let pair = self.stack.split_off(first);
                return self.set(pair).map(|()| None);
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                return self.set(pairs).map(|()| None);
            }
            // APPEND, APPENDS
            b'a' => {
                let item = self.pop()?;
                return self.append(vec![item]).map(|()| None);
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                return self.append(items).map(|()| None);
            }
            // BUILD: attributes of a dictionary.
            b'b' => return self.pop().map(|_| None),
            other => {
                return Err(format!(
                    "its program uses {}, which no dictionary of tensors needs",
                    opcode::describe(other)
                ));
            }
        };
        self.stack.push(value);
        Ok(None)
    }

    fn long(&mut self) -> Result<Value<'a>, String> {
        let length = self.number(1)?;
        let bytes = self.bytes(length)?;
        if length > 8 {
            return Ok(Value::Long(bytes));
        }
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if is_negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(bytes);
        Ok(Value::Number(i64::from_le_bytes(wide)))
    }

    fn dictionary(&mut self) -> Value<'a> {
        self.dictionaries.push(Vec::new());
        Value::Dictionary(self.dictionaries.len() - 1)
    }

    /// Puts pairs into the dictionary on top of the stack.
    fn set(&mut self, pairs: Vec<Value<'a>>) -> Result<(), String> {
        let Some(Value::Dictionary(number)) = self.stack.last() else {
            return Err("its program puts an item into what is no dictionary".to_owned());
        };
        if !pairs.len().is_multiple_of(2) {
            return Err("its program puts a key without a value into a dictionary".to_owned());
        }
        let mut pairs = pairs.into_iter();
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            let key = if let Value::Text(key) = key { Some(key) } else { None };
            self.dictionaries[*number].push((key, value.inner()));
        }
        Ok(())
    }

    /// Puts items into the list on top of the stack.
    fn append(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        let Some(Value::List(number)) = self.stack.last() else {
            return Err("its program appends to what is no list".to_owned());
        };
        self.lists[*number].extend(items.into_iter().map(Value::inner));
        Ok(())
    }

    /// REDUCE: a function and its arguments.
    fn call(&mut self) -> Result<Value<'a>, String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments, _), Value::Global(function)) = (arguments, function) else {
            return Err("its program calls what is no function".to_owned());
        };
        match (function, &*arguments) {
            (Global::OrderedDict, []) => Ok(self.dictionary()),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            (
                Global::RebuildTensor,
                [
                    Value::Storage(place, dtype),
                    Value::Number(offset),
                    Value::Tuple(shape, _),
                    Value::Tuple(strides, _),
                    ..,
                ],
            ) => tensor((place, *dtype), *offset, (shape, strides)),
            (Global::LoadFromBytes, [Value::Bytes(range)]) => self.stream(range),
            (function, _) => Err(format!("its program calls {function:?} with other arguments than torch does")),
        }
    }

    /// The storage in a literal of bytes.
    fn stream(&mut self, range: &Range<usize>) -> Result<Value<'a>, String> {
        if self.reach != Reach::Bytes {
            return Err("its program loads from bytes inside what was saved by torch".to_owned());
        }
        let (dtype, bytes) = match self.streams.get(&range.start) {
            Some(found) => found.clone(),
            None => {
                let (dtype, inside) = legacy::lone_storage(&self.program[range.clone()], self.steps)?;
                let found = (dtype, range.start + inside.start..range.start + inside.end);
                self.streams.insert(range.start, found.clone());
                found
            }
        };
        Ok(Value::Storage(Place::Bytes(bytes), dtype))
    }

    /// BINPERSID: `("storage", class, key, location, elements)`; old streams add a view of it, or `None`.
    fn storage(&mut self) -> Result<Value<'a>, String> {
        if let Value::Tuple(parts, _) = self.pop()?
            && let [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                _,
                Value::Number(elements),
                view @ ..,
            ] = &*parts
        {
            if matches!(view, [Value::Tuple(..), ..]) {
                return Err(format!("storage {key:?} in it is a view of another, which is not read"));
            }
            let said = (*dtype, size(*elements)?);
            if *self.storages.entry(key).or_insert(said) != said {
                return Err(format!("storage {key:?} in it has two types or two sizes"));
            }
            return Ok(Value::Storage(Place::Key(key), *dtype));
        }
        Err("its program asks for something outside it that is no storage".to_owned())
    }
}

#[cfg(test)]
mod tests;
