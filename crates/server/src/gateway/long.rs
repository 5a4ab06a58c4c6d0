//! A long reply to a range as JSON, written while it arrives.
//!
//! Some whole fields of the reply are a message of the same type, so what has arrived is turned
//! into JSON like any reply, and its text joined to the text before: the keys are one array.
//!
//! A body that ends cleanly is whole: its last bytes are written when the call has ended well.

use axum::body::Body;
use bytes::Buf;
use futures_util::stream;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::MessageDescriptor;
use tonic::Status;

use super::call::Replies;
use super::encode;

/// How the one array of a range's reply begins.
const ARRAY: &[u8] = b"\"kvs\":[";

/// The body that the one reply makes.
pub(super) fn body(replies: Replies, of: MessageDescriptor) -> Body {
    let long = Long {
        replies,
        of,
        text: Splice::default(),
    };
    Body::from_stream(stream::unfold(Some(long), |long| async {
        let mut long = long?;
        // One piece of JSON takes long enough: others get their turn.
        tokio::task::yield_now().await;
        Some(match long.next().await {
            Ok(Some(text)) => (Ok(text), Some(long)),
            Ok(None) => (Ok(long.text.end().to_vec()), None),
            Err(status) => (Err(status), None),
        })
    }))
}

struct Long {
    replies: Replies,
    of: MessageDescriptor,
    text: Splice,
}

impl Long {
    /// The text of the next fields; `None` when the call has ended well behind the last.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let Some(fields) = self.replies.part(whole_fields).await? else {
            return Ok(None);
        };
        let text = encode(self.of.clone(), fields)?;
        Ok(Some(self.text.join(&text)))
    }
}

/// How many bytes at the start of a message are whole fields.
fn whole_fields(message: &[u8]) -> usize {
    let mut rest = message;
    let mut whole = 0;
    while skip_field(&mut rest).is_some() {
        whole = message.len() - rest.len();
    }
    whole
}

fn skip_field(rest: &mut &[u8]) -> Option<()> {
    let (_, wire) = decode_key(rest).ok()?;
    let len = match wire {
        WireType::Varint => decode_varint(rest).map(|_| 0).ok()?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => decode_varint(rest).ok()?,
        // Of proto2; no message of ours has one.
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= rest.len())?;
    rest.advance(len);
    Some(())
}

/// JSON objects, each with some fields of one, joined to that one.
#[derive(Default)]
struct Splice {
    begun: bool,
    /// [`ARRAY`] was written last, up to its end, which is held back.
    is_open: bool,
}

impl Splice {
    fn join(&mut self, object: &[u8]) -> Vec<u8> {
        let fields = object.strip_prefix(b"{").and_then(|o| o.strip_suffix(b"}"));
        let mut fields = fields.expect("a message is an object");
        let mut out = Vec::with_capacity(object.len() + 2);
        let before: &[u8] = match (self.begun, self.is_open) {
            (false, _) => b"{",
            (true, false) => b",",
            (true, true) if fields.starts_with(ARRAY) => {
                fields = &fields[ARRAY.len()..];
                b","
            }
            (true, true) => b"],",
        };
        out.extend_from_slice(before);
        out.extend_from_slice(fields);
        self.begun = true;
        self.is_open = out.pop_if(|last| *last == b']').is_some();
        out
    }

    /// What is still to be written behind the last field.
    fn end(&self) -> &'static [u8] {
        match (self.begun, self.is_open) {
            (false, _) => b"{}",
            (true, false) => b"}",
            (true, true) => b"]}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_joined_and_their_arrays_too() {
        let cases: [(&[&str], &str); 5] = [
            (&[], "{}"),
            (&[r#"{"header":{"a":"]"}}"#], r#"{"header":{"a":"]"}}"#),
            (
                &[
                    r#"{"header":{},"kvs":[1]}"#,
                    r#"{"kvs":[2,3]}"#,
                    r#"{"kvs":[4]}"#,
                ],
                r#"{"header":{},"kvs":[1,2,3,4]}"#,
            ),
            (
                &[
                    r#"{"kvs":[1]}"#,
                    r#"{"kvs":[2],"more":true}"#,
                    r#"{"count":"3"}"#,
                ],
                r#"{"kvs":[1,2],"more":true,"count":"3"}"#,
            ),
            (
                &[r#"{"kvs":[1]}"#, r#"{"count":"3"}"#],
                r#"{"kvs":[1],"count":"3"}"#,
            ),
        ];
        for (objects, whole) in cases {
            let mut splice = Splice::default();
            let mut text = Vec::new();
            for object in objects {
                text.extend(splice.join(object.as_bytes()));
            }
            text.extend_from_slice(splice.end());
            assert_eq!(String::from_utf8(text).unwrap(), whole);
        }
    }

    #[test]
    fn only_whole_fields_count() {
        // A varint of two bytes, a string of three, eight bytes, four, and a string of 200.
        let mut message = b"\x08\x96\x01\x12\x03abc\x1912345678\x251234\x32\xc8\x01".to_vec();
        message.extend([b'x'; 200]);
        let ends = [0, 3, 8, 17, 22, message.len()];
        for len in 0..=message.len() {
            let whole = ends.iter().rfind(|end| **end <= len).unwrap();
            assert_eq!(whole_fields(&message[..len]), *whole, "{len}");
        }
    }
}
