//! One connection of HTTP/1.1, as bytes in and bytes out: a request, its answer, the next request.

use crate::connection::Event;

/// The request under way, and what has come of its answer.
#[derive(Default)]
pub(crate) struct Http1 {
    wanted_bytes: Option<usize>,
    incoming: Vec<u8>,
}

impl Http1 {
    /// Notes that a request was sent.
    pub(crate) fn request(&mut self, wanted_bytes: usize) {
        assert!(
            self.wanted_bytes.replace(wanted_bytes).is_none(),
            "one request at a time"
        );
    }

    /// Whether no request is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wanted_bytes.is_none()
    }

    /// Takes bytes of the answer.
    ///
    /// # Errors
    /// If they are not an answer, or nothing was asked.
    pub(crate) fn receive(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), String> {
        self.incoming.extend(bytes);
        let Some((length, answer)) = parse(&self.incoming)? else {
            return Ok(());
        };
        let wanted = self
            .wanted_bytes
            .take()
            .ok_or("an answer that nobody asked for")?;
        let result = match answer.status {
            200 | 201 if answer.body_bytes >= wanted => Ok(()),
            200 | 201 => Err(format!("a body of only {} bytes", answer.body_bytes)),
            _ => Err(String::from_utf8_lossy(&self.incoming[..length]).into_owned()),
        };
        self.incoming.drain(..length);
        events.push(Event::Done { slot: 0, result });
        Ok(())
    }
}

struct Answer {
    status: u16,
    body_bytes: usize,
}

/// Reads an answer and its whole length; `None` if more of it must come.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Answer)>, String> {
    let Some(head) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|error| error.to_string())?;
    let status = text.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.ok_or_else(|| format!("not an answer: {text}"))?;
    let body = head + 4;
    let mut length = None;
    for line in text.lines().skip(1) {
        let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(
                value
                    .trim()
                    .parse::<usize>()
                    .map_err(|error| error.to_string())?,
            );
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(chunks(&bytes[body..])?
                .map(|(length, body_bytes)| (body + length, Answer { status, body_bytes })));
        }
    }
    let body_bytes = length.ok_or("an answer without a length")?;
    let is_whole = bytes.len() - body >= body_bytes;
    Ok(is_whole.then_some((body + body_bytes, Answer { status, body_bytes })))
}

/// The length of a chunked body as it was sent, and as it is.
fn chunks(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let (mut at, mut body_bytes) = (0, 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = String::from_utf8_lossy(&bytes[at..at + line]);
        let size = usize::from_str_radix(digits.trim(), 16).map_err(|error| error.to_string())?;
        at += line + 2 + size + 2;
        body_bytes += size;
        if at > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some((at, body_bytes)));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::Http1;
    use crate::connection::Event;

    /// What came of an answer that arrived byte by byte.
    fn answer(text: &str, wanted_bytes: usize) -> Result<(), String> {
        let mut http = Http1::default();
        let mut events = Vec::new();
        http.request(wanted_bytes);
        for byte in text.as_bytes() {
            assert!(events.is_empty(), "done too early");
            http.receive(&[*byte], &mut events)?;
        }
        match events.pop() {
            Some(Event::Done { slot: 0, result }) => result,
            _ => Err("not done".into()),
        }
    }

    #[test]
    fn both_kinds_of_length_are_read() {
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3),
            Ok(())
        );
        let chunked = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n\
                       a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n";
        assert_eq!(answer(chunked, 11), Ok(()));
        assert!(answer(chunked, 12).is_err());
    }

    #[test]
    fn another_status_is_a_failure_with_its_text() {
        let text = answer("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone", 0);
        assert!(text.is_err_and(|text| text.contains("404") && text.ends_with("none")));
        assert!(answer("not http at all\r\n\r\n", 0).is_err());
    }
}
