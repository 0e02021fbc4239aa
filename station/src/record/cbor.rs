//! How values that have no CBOR of their own are stored: as the text that they are written as.

/// A value as its text.
pub mod text {
    use std::{fmt::Display, str::FromStr};

    use minicbor::{
        Decoder, Encoder,
        decode::Error,
        encode::{self, Write},
    };

    pub fn encode<C, T: Display, W: Write>(
        value: &T,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&value.to_string())?.ok()
    }

    pub fn decode<'b, C, T: FromStr<Err: Display>>(d: &mut Decoder<'b>, _: &mut C) -> Result<T, Error> {
        let at = d.position();
        d.str()?.parse().map_err(|error: T::Err| Error::message(error).at(at))
    }
}

/// A value as its text, or null.
pub mod optional_text {
    use std::{fmt::Display, str::FromStr};

    use minicbor::{
        Decoder, Encoder,
        data::Type,
        decode::Error,
        encode::{self, Write},
    };

    pub fn encode<C, T: Display, W: Write>(
        value: &Option<T>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match value {
            Some(value) => super::text::encode(value, e, ctx),
            None => e.null()?.ok(),
        }
    }

    pub fn decode<'b, C, T: FromStr<Err: Display>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Option<T>, Error> {
        if d.datatype()? == Type::Null {
            d.skip()?;
            return Ok(None);
        }
        super::text::decode(d, ctx).map(Some)
    }
}

/// A time as nanoseconds since 1970.
pub mod time {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use minicbor::{
        Decoder, Encoder,
        decode::Error,
        encode::{self, Write},
    };

    pub fn encode<C, W: Write>(
        value: &SystemTime,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        // A clock before 1970 is stored as 1970; after 2554 as 2554.
        let since = value.duration_since(UNIX_EPOCH).unwrap_or_default();
        e.u64(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))?.ok()
    }

    pub fn decode<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<SystemTime, Error> {
        d.u64().map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }
}

/// Limits as an array of two quantities.
pub mod limits {
    use factory_proto::units::Limits;
    use minicbor::{
        Decoder, Encoder,
        decode::Error,
        encode::{self, Write},
    };

    use super::text;

    pub fn encode<C, W: Write>(
        value: &Limits,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?;
        text::encode(&value.min(), e, ctx)?;
        text::encode(&value.max(), e, ctx)
    }

    pub fn decode<'b, C>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Limits, Error> {
        let at = d.position();
        if d.array()? != Some(2) {
            return Err(Error::message("limits are an array of two").at(at));
        }
        Limits::new(text::decode(d, ctx)?, text::decode(d, ctx)?)
            .map_err(|error| Error::message(error).at(at))
    }
}
