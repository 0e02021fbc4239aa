//! Request payloads as trees of values. Takes what the device takes: a definite map on top, anything
//! well-formed further in. Knows no key by name.

use minicbor::{
    Decoder,
    data::{IanaTag, Type},
    decode::Error,
};

use super::status::{Failure, Status};

/// The device refuses a top map with more pairs.
const MAX_PAIRS: u64 = 12;
const MAX_DEPTH: u8 = 8;

/// One CBOR item, as far as the device can use it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of any encoded width, or a bignum that fits.
    Integer(i128),
    /// A definite byte string.
    Bytes(Vec<u8>),
    /// A definite text string.
    Text(String),
    /// Definite or not.
    Array(Vec<Value>),
    /// Definite or not, in the order sent.
    Map(Vec<(String, Value)>),
    /// Well-formed, of a kind that no field takes.
    Other,
}

impl Value {
    /// The text, or a failure.
    pub fn text(&self) -> Result<&str, Failure> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Failure::general(Status::Malformed)),
        }
    }

    /// The bytes, or a failure.
    pub fn bytes(&self) -> Result<&[u8], Failure> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Failure::general(Status::Malformed)),
        }
    }

    /// The integer, or a failure.
    pub fn integer(&self) -> Result<i128, Failure> {
        match self {
            Self::Integer(number) => Ok(*number),
            _ => Err(Failure::general(Status::Malformed)),
        }
    }

    /// The elements, or a failure.
    pub fn array(&self) -> Result<&[Value], Failure> {
        match self {
            Self::Array(values) => Ok(values),
            _ => Err(Failure::general(Status::Malformed)),
        }
    }

    /// The pairs, or a failure.
    pub fn map(&self) -> Result<&[(String, Value)], Failure> {
        match self {
            Self::Map(pairs) => Ok(pairs),
            _ => Err(Failure::general(Status::Malformed)),
        }
    }
}

/// The pairs of the one map that a payload must be.
pub fn top_map(payload: &[u8]) -> Result<Vec<(String, Value)>, Failure> {
    let malformed = |_| Failure::general(Status::Malformed);
    let mut input = Decoder::new(payload);
    let definite = matches!(Decoder::new(payload).map(), Ok(Some(pairs)) if pairs <= MAX_PAIRS);
    let value = read(&mut input, MAX_DEPTH).map_err(malformed)?;
    match value {
        Value::Map(pairs) if definite && input.position() == payload.len() => Ok(pairs),
        _ => Err(Failure::general(Status::Malformed)),
    }
}

fn read(input: &mut Decoder<'_>, depth: u8) -> Result<Value, Error> {
    let Some(depth) = depth.checked_sub(1) else { return Err(Error::message("nested too deep")) };
    Ok(match input.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Integer(input.int()?.into()),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => Value::Integer(input.int()?.into()),
        Type::Bytes => Value::Bytes(input.bytes()?.to_vec()),
        Type::String => Value::Text(input.str()?.to_owned()),
        Type::Array | Type::ArrayIndef => {
            let length = input.array()?;
            let mut values = Vec::new();
            while !at_end(input, length, values.len())? {
                values.push(read(input, depth)?);
            }
            Value::Array(values)
        }
        Type::Map | Type::MapIndef => {
            let length = input.map()?;
            let mut pairs = Vec::new();
            while !at_end(input, length, pairs.len())? {
                pairs.push((input.str()?.to_owned(), read(input, depth)?));
            }
            Value::Map(pairs)
        }
        Type::Tag => {
            let tag = input.tag()?;
            match read(input, depth)? {
                Value::Bytes(bytes) if tag == IanaTag::PosBignum.tag() && bytes.len() <= 8 => {
                    Value::Integer(bytes.iter().fold(0, |number, byte| number << 8 | i128::from(*byte)))
                }
                _ => Value::Other,
            }
        }
        Type::Break | Type::Unknown(_) => return Err(Error::message("not an item")),
        _ => {
            input.skip()?;
            Value::Other
        }
    })
}

fn at_end(input: &mut Decoder<'_>, length: Option<u64>, done: usize) -> Result<bool, Error> {
    if let Some(length) = length {
        return Ok(u64::try_from(done).is_ok_and(|done| done == length));
    }
    let over = input.datatype()? == Type::Break;
    if over {
        input.set_position(input.position() + 1);
    }
    Ok(over)
}
