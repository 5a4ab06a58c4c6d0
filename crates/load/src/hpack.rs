//! Header blocks: writing a request's, and reading from an answer's what became of the call.
//!
//! Requests use the table that the connection builds up, as real clients do: the first request names
//! its headers, later ones are seven bytes. Answers must not: we tell the server that our table has
//! no room, so that each of its blocks can be read alone.
//!
//! Source: RFC 7541.

use std::collections::VecDeque;

/// The first index that is not the static table's.
const FIRST_OF_TABLE: usize = 62;
/// The most entries whose index is one byte.
const MAX_ENTRIES: usize = 127 - FIRST_OF_TABLE;

/// Fields that each request has, by name's index in the static table, or name, and value.
const FIELDS: [(Name, &str); 4] = [
    (Name::Static(1), "127.0.0.1"),
    (Name::Static(31), "application/grpc"),
    (Name::Literal("te"), "trailers"),
    (Name::Static(58), "quorate-load/0.1"),
];
const PATH: Name = Name::Static(4);

#[derive(Clone, Copy)]
enum Name {
    Static(u8),
    Literal(&'static str),
}

/// The table of a connection, as far as the requests go.
#[derive(Default)]
pub(crate) struct Table {
    /// Newest first, as the indices go.
    values: VecDeque<String>,
}

impl Table {
    /// Writes the header block of a gRPC request.
    pub(crate) fn write_request(&mut self, path: &str, out: &mut Vec<u8>) {
        // :method POST and :scheme http are in the static table.
        out.extend([0x83, 0x86]);
        self.write(PATH, path, out);
        for (name, value) in FIELDS {
            self.write(name, value, out);
        }
    }

    /// Writes a field, by its index if it has been written before. Values alone tell ours apart.
    fn write(&mut self, name: Name, value: &str, out: &mut Vec<u8>) {
        if let Some(at) = self.values.iter().position(|known| known == value) {
            out.push(0x80 | u8::try_from(FIRST_OF_TABLE + at).expect("at most 127"));
            return;
        }
        assert!(self.values.len() < MAX_ENTRIES, "too many paths");
        match name {
            Name::Static(index) => out.push(0x40 | index),
            Name::Literal(name) => {
                out.push(0x40);
                write_string(name, out);
            }
        }
        write_string(value, out);
        self.values.push_front(value.to_owned());
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(
        u8::try_from(text.len())
            .ok()
            .filter(|n| *n < 127)
            .expect("a short text"),
    );
    out.extend(text.as_bytes());
}

/// What a block of an answer says of its call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Said {
    pub(crate) http_status: Option<String>,
    pub(crate) grpc_status: Option<String>,
    pub(crate) message: Option<String>,
}

/// Reads a block. `None` if it is malformed, or needs a table that we do not have.
pub(crate) fn read(mut block: &[u8]) -> Option<Said> {
    let mut said = Said::default();
    while let Some(&first) = block.first() {
        if first & 0x80 != 0 {
            let index = read_integer(&mut block, 7)?;
            if let 8..=14 = index {
                let values = ["200", "204", "206", "304", "400", "404", "500"];
                said.http_status = Some(values[index - 8].to_owned());
            } else if index == 0 || index >= FIRST_OF_TABLE {
                return None;
            }
        } else if first & 0xe0 == 0x20 {
            // A new size of the table; there is nothing in it.
            read_integer(&mut block, 5)?;
        } else {
            let prefix = if first & 0x40 != 0 { 6 } else { 4 };
            let index = read_integer(&mut block, prefix)?;
            let name = match index {
                0 => read_string(&mut block)?,
                8..=14 => ":status".to_owned(),
                _ if index < FIRST_OF_TABLE => String::new(),
                _ => return None,
            };
            let value = read_string(&mut block)?;
            match name.as_str() {
                ":status" => said.http_status = Some(value),
                "grpc-status" => said.grpc_status = Some(value),
                "grpc-message" => said.message = Some(value),
                _ => {}
            }
        }
    }
    Some(said)
}

/// Reads an integer whose first bits are the last `prefix` of the first byte.
fn read_integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, rest) = block.split_first()?;
    *block = rest;
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let (next, rest) = block.split_first()?;
        *block = rest;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn read_string(block: &mut &[u8]) -> Option<String> {
    let is_coded = block.first()? & 0x80 != 0;
    let length = read_integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length)?;
    *block = rest;
    if is_coded {
        Some(decode(bytes))
    } else {
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The characters of the Huffman code by the lengths of their codes. The code is canonical: codes of
/// one length are neighbours, in the characters' order. What is longer is not printable, but for `\`.
const CODE: [(u32, &str); 10] = [
    (5, "012aceiost"),
    (6, " %-./3456789=A_bdfghlmnpru"),
    (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, "&*,;XZ"),
    (10, "!\"()?"),
    (11, "'+|"),
    (12, "#>"),
    (13, "\0$@[]~"),
    (14, "^}"),
    (15, "<`{"),
];

/// Decodes a text, up to the first character that the table lacks, which leaves `?` in its place.
fn decode(bytes: &[u8]) -> String {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut text = String::new();
    'characters: loop {
        let (mut code, mut length, mut first) = (0, 0, 0);
        for (next, characters) in CODE {
            first <<= next - length;
            while length < next {
                // What is left at the end are the first bits of a long code, all of them set.
                let Some(bit) = bits.next() else { return text };
                code = code << 1 | usize::from(bit);
                length += 1;
            }
            if let Some(found) = characters.as_bytes().get(code - first) {
                text.push(char::from(*found));
                continue 'characters;
            }
            first += characters.len();
        }
        text.push('?');
        return text;
    }
}

#[cfg(test)]
mod tests {
    use super::{Said, Table, decode, read};

    #[test]
    fn the_code_reads_the_examples_of_the_rfc() {
        // Source: RFC 7541, C.4.1, C.4.2, C.6.1.
        let host = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decode(&host), "www.example.com");
        assert_eq!(decode(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]), "no-cache");
        assert_eq!(decode(&[0x64, 0x02]), "302");
        let url = [
            0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82,
            0xae, 0x43, 0xd3,
        ];
        assert_eq!(decode(&url), "https://www.example.com");
    }

    #[test]
    fn a_code_that_is_not_in_the_table_ends_the_text() {
        // `a`, then 19 bits of a backslash.
        assert_eq!(decode(&[0b0001_1111, 0xff, 0xff, 0b1000_0111]), "a?");
    }

    #[test]
    fn an_answer_says_what_became_of_the_call() {
        let mut block = vec![0x20, 0x88, 0x5f, 1, b'x'];
        block.extend([0x40, 11]);
        block.extend(b"grpc-status");
        block.extend([2, b'1', b'1']);
        let said = read(&block).expect("a block");
        assert_eq!(said.http_status.as_deref(), Some("200"));
        assert_eq!(said.grpc_status.as_deref(), Some("11"));
        assert_eq!(
            read(&[0x48, 0x82, 0x64, 0x02])
                .and_then(|s| s.http_status)
                .as_deref(),
            Some("302")
        );
    }

    #[test]
    fn a_block_that_needs_our_table_or_is_cut_off_is_refused() {
        assert_eq!(read(&[0xbe]), None);
        assert_eq!(read(&[0x7f, 0x00]), None);
        assert_eq!(read(&[0x40, 5, b'a']), None);
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[]), Some(Said::default()));
    }

    #[test]
    fn a_repeated_request_is_seven_bytes() {
        let (mut table, mut first, mut other, mut again) =
            (Table::default(), vec![], vec![], vec![]);
        table.write_request("/a", &mut first);
        assert_eq!(first[..6], [0x83, 0x86, 0x44, 2, b'/', b'a']);
        table.write_request("/b", &mut other);
        // The authority was the second to be inserted of six.
        assert_eq!(
            other,
            [0x83, 0x86, 0x44, 2, b'/', b'b', 0xc2, 0xc1, 0xc0, 0xbf]
        );
        table.write_request("/a", &mut again);
        assert_eq!(again, [0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf]);
    }
}
