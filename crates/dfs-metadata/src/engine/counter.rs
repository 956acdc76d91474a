//! The counters that [`Write::Add`](super::Write::Add) adds to.

use bytes::Bytes;

/// Format of a counter, its first byte.
const FORMAT: u8 = 1;
/// Bytes of a counter.
pub(super) const COUNTER_LEN: usize = 9;

/// Encodes a counter: a format byte, then the number, big-endian in two's complement.
pub fn encode_counter(number: i64) -> Bytes {
    let mut value = [FORMAT; COUNTER_LEN];
    value[1..].copy_from_slice(&number.to_be_bytes());
    Bytes::copy_from_slice(&value)
}

/// Decodes a counter; `None` for any other value.
pub fn decode_counter(value: &[u8]) -> Option<i64> {
    let (&FORMAT, number) = value.split_first()? else { return None };
    Some(i64::from_be_bytes(number.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_decode_as_counters() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(decode_counter(&encode_counter(number)), Some(number));
        }
        for value in [&b""[..], b"12345678", b"\x02........", b"\x01.........", b"\x01"] {
            assert_eq!(decode_counter(value), None, "{value:?}");
        }
    }
}
