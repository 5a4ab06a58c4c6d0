//! What of a watch's messages is measured: how many events they hold, and since when those were due.
//!
//! Source: etcd API v3, `WatchResponse`, `Event`, `KeyValue`.

use crate::template::read_time;

/// A message of a watch, as far as it matters.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Told {
    pub(crate) is_created: bool,
    pub(crate) is_canceled: bool,
    pub(crate) events: u64,
    /// The time in the value of the last event.
    pub(crate) due: Option<u64>,
}

/// Reads a message; `None` if it is malformed.
pub(crate) fn read(message: &[u8]) -> Option<Told> {
    let mut told = Told::default();
    walk(message, |field, bytes, number| match field {
        3 => told.is_created = number != 0,
        4 => told.is_canceled = number != 0,
        11 => {
            told.events += 1;
            let value = inner(bytes, 2).and_then(|kv| inner(kv, 5));
            told.due = value.and_then(read_time);
        }
        _ => {}
    })?;
    Some(told)
}

/// A field of a message that holds bytes.
fn inner(message: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut found = None;
    walk(message, |field, bytes, _| {
        if field == wanted {
            found = Some(bytes);
        }
    })?;
    found
}

/// Calls back with each field: its number, its bytes, or else its value.
fn walk<'a>(mut message: &'a [u8], mut each: impl FnMut(u64, &'a [u8], u64)) -> Option<()> {
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        match tag & 7 {
            0 => each(tag >> 3, &[], read_varint(&mut message)?),
            2 => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                each(tag >> 3, bytes, 0);
            }
            _ => return None,
        }
    }
    Some(())
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Told, read};

    /// A field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("short")];
        out.extend(bytes);
        out
    }

    #[test]
    fn events_are_counted_and_their_time_is_read() {
        let header = [field(1, &[0x18, 0x96, 0x01]), vec![0x10, 7]].concat();
        let event = |value: &[u8]| {
            let kv = [field(1, b"key"), vec![0x18, 5], field(5, value)].concat();
            field(11, &field(2, &kv))
        };
        let message = [header, event(b"none"), event(b"00000000000000ffx")].concat();
        let told = read(&message).expect("a message");
        assert_eq!((told.events, told.due), (2, Some(255)));
        assert_eq!(
            read(&[0x18, 1]),
            Some(Told {
                is_created: true,
                ..Told::default()
            })
        );
        assert_eq!(read(&[0x5a, 9, 1]), None);
        assert_eq!(read(&[0xff]), None);
    }
}
