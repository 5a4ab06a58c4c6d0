//! Requests, encoded once, with holes for what differs between them.

use fastrand::Rng;

/// In a template, the number of a key: so many decimal digits stand here in each request.
pub const DIGITS: &str = "#################";
/// In a template, a run of at least eight of these is random bytes in each request.
pub const FILLER: u8 = b'~';
/// In a template, the time at which each request was due; whoever watches measures from it.
pub const TIME: &str = "@@@@@@@@@@@@@@@@";

/// The flag and the length in front of a gRPC message.
const FRAME_BYTES: usize = 5;
/// What fits into one frame of HTTP/2, whatever the server says.
const MAX_BYTES: usize = 16_384;

/// A kind of request, ready to be sent but for its holes.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) dialect: Dialect,
    bytes: Vec<u8>,
    holes: Vec<Hole>,
    pub(crate) wanted_bytes: usize,
}

/// How requests and answers travel.
#[derive(Clone, Debug)]
pub(crate) enum Dialect {
    /// Over HTTP/2, to a method's path.
    Grpc { path: String },
    /// The whole request, over HTTP/1.1.
    Http,
}

#[derive(Clone, Debug)]
struct Hole {
    start: usize,
    length: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Key,
    Random,
    Time,
}

impl Template {
    /// A gRPC call. An answer whose message has fewer than `wanted_bytes` has failed.
    pub fn grpc(path: &str, message: &[u8], wanted_bytes: usize) -> Self {
        assert!(
            message.len() <= MAX_BYTES - FRAME_BYTES,
            "a message larger than a frame"
        );
        let length = u32::try_from(message.len()).expect("below 16 KiB");
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(message);
        let dialect = Dialect::Grpc {
            path: path.to_owned(),
        };
        Self::new(dialect, bytes, wanted_bytes + FRAME_BYTES)
    }

    /// A request of HTTP/1.1 with a form as its body. An answer whose body has fewer than
    /// `wanted_bytes` has failed.
    pub fn http(method: &str, path: &str, form: &str, wanted_bytes: usize) -> Self {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        if !form.is_empty() {
            text += "Content-Type: application/x-www-form-urlencoded\r\n";
            text += &format!("Content-Length: {}\r\n", form.len());
        }
        text += &format!("\r\n{form}");
        Self::new(Dialect::Http, text.into_bytes(), wanted_bytes)
    }

    fn new(dialect: Dialect, bytes: Vec<u8>, wanted_bytes: usize) -> Self {
        let mut holes = Vec::new();
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            let length = bytes[at..]
                .iter()
                .take_while(|byte| **byte == first)
                .count();
            let kind = match first {
                b'#' if length == DIGITS.len() => Some(Kind::Key),
                b'@' if length == TIME.len() => Some(Kind::Time),
                FILLER if length >= 8 => Some(Kind::Random),
                _ => None,
            };
            holes.extend(kind.map(|kind| Hole {
                start: at,
                length,
                kind,
            }));
            at += length;
        }
        Self {
            dialect,
            bytes,
            holes,
            wanted_bytes,
        }
    }

    /// Writes one request: the framed message, or all of HTTP/1.1's.
    pub(crate) fn write(&self, key: u32, due: u64, rng: &mut Rng, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(&self.bytes);
        for hole in &self.holes {
            let bytes = &mut out[start + hole.start..][..hole.length];
            match hole.kind {
                Kind::Key => write_decimal(key, bytes),
                Kind::Random => rng.fill(bytes),
                Kind::Time => write_time(due, bytes),
            }
        }
    }
}

fn write_decimal(mut number: u32, bytes: &mut [u8]) {
    for byte in bytes.iter_mut().rev() {
        *byte = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

fn write_time(nanos: u64, bytes: &mut [u8]) {
    for (at, byte) in bytes.iter_mut().rev().enumerate() {
        let digit = u32::try_from(nanos >> (4 * at) & 15).expect("four bits");
        *byte = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
    }
}

/// The time that a value begins with.
pub(crate) fn read_time(value: &[u8]) -> Option<u64> {
    let digits = value.get(..TIME.len())?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::{DIGITS, TIME, Template, read_time};

    #[test]
    fn holes_are_filled_and_the_rest_is_kept() {
        let message = format!("key {DIGITS}; {TIME}; ~~~~~~~~; # @@ ~~~");
        let template = Template::grpc("/S/M", message.as_bytes(), 0);
        let (mut out, mut rng) = (vec![b'x'], Rng::with_seed(1));
        template.write(4_294_967_295, 0xabc, &mut rng, &mut out);
        assert_eq!(
            out[..6],
            [
                b'x',
                0,
                0,
                0,
                0,
                u8::try_from(message.len()).expect("short")
            ]
        );
        let text = String::from_utf8_lossy(&out[6..]);
        assert!(
            text.starts_with("key 00000004294967295; 0000000000000abc; "),
            "{text}"
        );
        assert!(
            text.ends_with("; # @@ ~~~") && !text.contains("~~~~"),
            "{text}"
        );
        assert_eq!(read_time(b"0000000000000abcrest"), Some(0xabc));
    }

    #[test]
    fn a_form_has_its_length() {
        let template = Template::http("PUT", "/v2/keys/a", "value=1", 0);
        let mut out = Vec::new();
        template.write(0, 0, &mut Rng::with_seed(1), &mut out);
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("Content-Length: 7\r\n") && text.ends_with("\r\n\r\nvalue=1"));
    }
}
