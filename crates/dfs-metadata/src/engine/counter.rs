//! The values that [`Write::Add`](super::Write::Add) adds to.

use bytes::Bytes;

/// Format of a counter, its first byte.
const FORMAT: u8 = 1;
/// Bytes of a counter.
pub(super) const COUNTER_LEN: usize = 9;

/// The value of a key that counts: a format byte, then the number, big-endian in two's complement.
pub fn encode_counter(number: i64) -> Bytes {
    let mut value = [FORMAT; COUNTER_LEN];
    value[1..].copy_from_slice(&number.to_be_bytes());
    Bytes::copy_from_slice(&value)
}

/// Reads the value of a key that counts; `None` when it is none.
pub fn decode_counter(value: &[u8]) -> Option<i64> {
    let (&FORMAT, number) = value.split_first()? else { return None };
    Some(i64::from_be_bytes(number.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_back_and_nothing_else_is_one() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(decode_counter(&encode_counter(number)), Some(number));
        }
        for value in [&b""[..], b"12345678", b"\x02........", b"\x01.........", b"\x01"] {
            assert_eq!(decode_counter(value), None, "{value:?}");
        }
    }
}
