//! Consistent overhead byte stuffing: packets without zero bytes, so that a zero can end each.

/// Unstuffs one packet, given without its closing zero. None when it is malformed.
pub fn decode(mut packet: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(packet.len());
    while let Some((&code, rest)) = packet.split_first() {
        let (block, after) = rest.split_at_checked(usize::from(code).checked_sub(1)?)?;
        plain.extend_from_slice(block);
        if code < u8::MAX && !after.is_empty() {
            plain.push(0);
        }
        packet = after;
    }
    Some(plain)
}

/// Stuffs `plain` and appends the closing zero.
pub fn encode(plain: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(plain.len() + plain.len() / 254 + 2);
    for block in plain.split(|byte| *byte == 0) {
        let mut pieces = block.chunks(254).peekable();
        if pieces.peek().is_none() {
            packet.push(1);
        }
        while let Some(piece) = pieces.next() {
            packet.push(u8::try_from(piece.len() + 1).expect("chunks of at most 254"));
            packet.extend_from_slice(piece);
            // A full piece carries no zero of its own; if the block ends with it, an empty piece does.
            if piece.len() == 254 && pieces.peek().is_none() {
                packet.push(1);
            }
        }
    }
    packet.push(0);
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mostly_without_zeros() -> impl Strategy<Value = Vec<u8>> {
        // Runs of more than 254 bytes are where the encoding is easily wrong.
        proptest::collection::vec(0u8..=255, 0..600).prop_map(|mut bytes| {
            bytes.iter_mut().skip(20).filter(|byte| **byte == 0).for_each(|byte| *byte = 1);
            bytes
        })
    }

    proptest! {
        #[test]
        fn what_was_stuffed_comes_out_as_it_was(plain in mostly_without_zeros()) {
            let packet = encode(&plain);
            let (end, body) = packet.split_last().unwrap();
            prop_assert_eq!(*end, 0);
            prop_assert!(!body.contains(&0));
            prop_assert_eq!(decode(body), Some(plain));
        }

        #[test]
        fn no_packet_makes_the_decoder_panic(packet: Vec<u8>) {
            decode(&packet);
        }
    }
}
