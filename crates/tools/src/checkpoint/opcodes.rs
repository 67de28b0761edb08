//! The opcodes of pickle protocols 2 to 5 (and those of 0 and 1 that cost nothing), over [`Machine`].

use eomt_edge_host::bounds::PICKLE_STEPS_MAX;

use super::error::quote;
use super::pickle::{Fault, Machine, Value, bad};

/// Runs the pickle. The machine then holds the objects that it describes, and the value is their root.
///
/// # Errors
/// When the pickle would call a function, or is not one that torch.save writes.
pub(super) fn load(bytes: &[u8]) -> Result<(Machine, Value), Fault> {
    let mut machine = Machine::default();
    let root = run(&mut machine, bytes)?;
    Ok((machine, root))
}

/// A cursor over the pickle; every read is checked against its end.
struct Code<'a> {
    bytes: &'a [u8],
}

impl<'a> Code<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Fault> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self.bytes.split_at_checked(count) {
            Some((head, rest)) => {
                self.bytes = rest;
                Ok(head)
            }
            None => bad("ends in the middle of a value"),
        }
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, bytes: u64) -> Result<u64, Fault> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Bytes after their length, a number of `width` bytes.
    fn counted(&mut self, width: u64) -> Result<&'a [u8], Fault> {
        let count = self.number(width)?;
        self.take(count)
    }

    fn text(&mut self, width: u64) -> Result<String, Fault> {
        Ok(String::from_utf8_lossy(self.counted(width)?).into_owned())
    }

    fn line(&mut self) -> Result<String, Fault> {
        match self.bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => Ok(String::from_utf8_lossy(&self.take(end as u64 + 1)?[..end]).into_owned()),
            None => bad("ends in the middle of a line"),
        }
    }
}

/// Runs the pickle to its end and returns the value it describes.
fn run(machine: &mut Machine, bytes: &[u8]) -> Result<Value, Fault> {
    let mut code = Code { bytes };
    for _ in 0..PICKLE_STEPS_MAX {
        match code.take(1)?[0] {
            b'.' => return machine.pop(),
            opcode => {
                let known = constant(machine, &mut code, opcode)? || container(machine, opcode)? || reference(machine, &mut code, opcode)?;
                if !known {
                    call(machine, &mut code, opcode)?;
                }
            }
        }
    }
    bad(format!("has more than {PICKLE_STEPS_MAX} operations"))
}

/// Opcodes that push a constant. `false` = not one of them.
fn constant(machine: &mut Machine, code: &mut Code, opcode: u8) -> Result<bool, Fault> {
    let value = match opcode {
        b'N' => Value::Opaque,
        0x88 | 0x89 => Value::Bool(opcode == 0x88),
        b'J' => Value::Int(i64::from(code.number(4)? as u32 as i32)),
        b'K' => Value::Int(code.number(1)? as i64),
        b'M' => Value::Int(code.number(2)? as i64),
        0x8a => long(code.counted(1)?),
        0x8b => long(code.counted(4)?),
        b'I' | b'L' => match code.line()?.as_str() {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            digits => digits.trim_end_matches('L').parse().map_or(Value::Opaque, Value::Int),
        },
        b'F' => code.line()?.parse().map_or(Value::Opaque, Value::Float),
        b'G' => {
            let bits = code.take(8)?.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            Value::Float(f64::from_bits(bits))
        }
        b'B' => code.counted(4).map(|_| Value::Opaque)?,
        b'C' => code.counted(1).map(|_| Value::Opaque)?,
        0x8e | 0x96 => code.counted(8).map(|_| Value::Opaque)?,
        b'X' | b'T' => return code.text(4).map(|text| machine.push_text(text)).map(|()| true),
        0x8c | b'U' => return code.text(1).map(|text| machine.push_text(text)).map(|()| true),
        0x8d => return code.text(8).map(|text| machine.push_text(text)).map(|()| true),
        b'S' | b'V' => return code.line().map(|text| machine.push_text(text)).map(|()| true),
        _ => return Ok(false),
    };
    machine.stack.push(value);
    Ok(true)
}

/// A little-endian two's complement number; one that does not fit 64 bits cannot be the size of a tensor.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// Opcodes that build or fill containers. `false` = not one of them.
fn container(machine: &mut Machine, opcode: u8) -> Result<bool, Fault> {
    match opcode {
        b'(' => machine.marks.push(machine.stack.len()),
        b']' | b')' | 0x8f => machine.push_sequence(vec![]),
        b'}' => machine.push_dict(vec![]),
        b't' | b'l' | 0x91 => {
            let items = machine.pop_mark()?;
            machine.push_sequence(items);
        }
        0x85..=0x87 => {
            let mut items = (0..opcode - 0x84).map(|_| machine.pop()).collect::<Result<Vec<_>, _>>()?;
            items.reverse();
            machine.push_sequence(items);
        }
        b'd' => {
            let items = machine.pop_mark()?;
            machine.push_dict(vec![]);
            machine.extend_dict(items)?;
        }
        b'a' => {
            let item = machine.pop()?;
            machine.extend_sequence(vec![item])?;
        }
        b'e' | 0x90 => {
            let items = machine.pop_mark()?;
            machine.extend_sequence(items)?;
        }
        b's' => {
            let (value, key) = (machine.pop()?, machine.pop()?);
            machine.extend_dict(vec![key, value])?;
        }
        b'u' => {
            let items = machine.pop_mark()?;
            machine.extend_dict(items)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Opcodes about the memo, the stack and the framing. `false` = not one of them.
fn reference(machine: &mut Machine, code: &mut Code, opcode: u8) -> Result<bool, Fault> {
    match opcode {
        0x80 => match code.number(1)? {
            0..=5 => {}
            version => return bad(format!("has protocol {version}, known are 2 to 5")),
        },
        0x95 => code.take(8).map(|_| ())?,
        b'q' | b'r' | b'p' | 0x94 => {
            let key = match opcode {
                b'q' => code.number(1)?,
                b'r' => code.number(4)?,
                b'p' => memo_key(&code.line()?)?,
                _ => machine.memo.len() as u64,
            };
            machine.memo.insert(key, machine.top()?);
        }
        b'h' | b'j' | b'g' => {
            let key = match opcode {
                b'h' => code.number(1)?,
                b'j' => code.number(4)?,
                _ => memo_key(&code.line()?)?,
            };
            let value = machine.memo.get(&key).copied().ok_or(Fault::Bad("recalls a value that it never stored".into()))?;
            machine.stack.push(value);
        }
        b'0' => machine.pop().map(|_| ())?,
        b'1' => machine.pop_mark().map(|_| ())?,
        b'2' => machine.stack.push(machine.top()?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn memo_key(line: &str) -> Result<u64, Fault> {
    line.parse().or_else(|_| bad("has a memo key that is not a number"))
}

/// Opcodes that name or call something; unknown names become objects.
fn call(machine: &mut Machine, code: &mut Code, opcode: u8) -> Result<(), Fault> {
    match opcode {
        b'c' => {
            let (module, name) = (code.line()?, code.line()?);
            machine.push_global(&module, &name);
            Ok(())
        }
        0x93 => match (machine.pop()?, machine.pop()?) {
            (Value::Text(name), Value::Text(module)) => {
                let (module, name) = (machine.texts[module].clone(), machine.texts[name].clone());
                machine.push_global(&module, &name);
                Ok(())
            }
            _ => bad("names a function by something that is not a text"),
        },
        b'R' | 0x81 => {
            let (arguments, callable) = (machine.pop()?, machine.pop()?);
            machine.call(callable, arguments)
        }
        0x92 => {
            let (_, arguments, callable) = (machine.pop()?, machine.pop()?, machine.pop()?);
            machine.call(callable, arguments)
        }
        b'o' => {
            let items = machine.pop_mark()?;
            let callable = *items.first().ok_or(Fault::Bad("builds an object of no class".into()))?;
            machine.push_sequence(items[1..].to_vec());
            let arguments = machine.pop()?;
            machine.call(callable, arguments)
        }
        b'i' => {
            let class = format!("{}.{}", quote(&code.line()?), quote(&code.line()?));
            machine.pop_mark()?;
            machine.push_object(class);
            Ok(())
        }
        0x82..=0x84 => {
            let number = code.number([1, 2, 4][usize::from(opcode) - 0x82])?;
            machine.push_object(format!("extension {number}"));
            Ok(())
        }
        b'Q' => {
            let id = machine.pop()?;
            machine.push_persistent(id)
        }
        b'b' => {
            let attributes = machine.pop()?;
            machine.build(attributes)
        }
        _ => bad(format!("has the unknown operation 0x{opcode:02x}")),
    }
}
