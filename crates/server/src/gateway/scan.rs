//! Where JSON values end in what a client sends, byte by byte, and what is wrong with those that
//! are none, in the words of Go's `encoding/json`.
//!
//! The grammar alone: neither UTF-8 nor meaning is looked at. It keeps its place between pieces, so
//! that no byte is read twice however a body is cut.

use bytes::{Bytes, BytesMut};

/// Deeper values are refused.
const MAX_DEPTH: usize = 10_000;

/// What a [`Reader`] found.
pub(super) enum Next {
    /// A value, without the space around it.
    Value(Bytes),
    /// What came so far ends within a value.
    More,
    /// Nothing but space is left.
    End,
}

/// Cuts a body into values.
#[derive(Default)]
pub(super) struct Reader {
    received: BytesMut,
    /// How many of the received bytes the scanner has seen.
    seen: usize,
    scanner: Scanner,
}

impl Reader {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.received.len()
    }

    /// The next value; `ended` if no more pieces come.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn next(&mut self, ended: bool) -> Result<Next, String> {
        if self.seen == 0 {
            let space = self.received.iter().take_while(|byte| is_space(**byte));
            let space = space.count();
            drop(self.received.split_to(space));
        }
        while let Some(byte) = self.received.get(self.seen) {
            match self.scanner.step(*byte)? {
                Step::Inside => self.seen += 1,
                Step::Last => {
                    self.seen += 1;
                    return Ok(self.value());
                }
                Step::Behind => return Ok(self.value()),
            }
        }
        if !ended {
            Ok(Next::More)
        } else if self.seen == 0 {
            Ok(Next::End)
        } else if self.scanner.ends_here() {
            Ok(self.value())
        } else {
            Err("unexpected EOF".to_owned())
        }
    }

    fn value(&mut self) -> Next {
        self.scanner = Scanner::default();
        Next::Value(
            self.received
                .split_to(std::mem::take(&mut self.seen))
                .freeze(),
        )
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// How a byte stands to the value.
enum Step {
    Inside,
    Last,
    /// The value, a number, ended before this byte.
    Behind,
}

#[derive(Default)]
struct Scanner {
    /// The objects (true) and arrays around the next byte.
    around: Vec<bool>,
    state: State,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Value,
    /// Behind `[`.
    ValueOrEnd,
    /// Behind `{`.
    KeyOrEnd,
    Key,
    Colon,
    AfterValue,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
    },
    Word {
        word: &'static str,
        at: usize,
    },
    Number(Number),
}

#[derive(Clone, Copy)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// Where a byte leads; `Ok(None)` if the number ended before it.
    fn step(self, byte: u8) -> Result<Option<Self>, String> {
        let digit = byte.is_ascii_digit();
        Ok(Some(match self {
            Self::Minus if byte == b'0' => Self::Zero,
            Self::Minus if digit => Self::Digits,
            Self::Minus => return Err(invalid(byte, "in numeric literal")),
            Self::Digits if digit => Self::Digits,
            Self::Zero | Self::Digits if byte == b'.' => Self::Point,
            Self::Point | Self::Fraction if digit => Self::Fraction,
            Self::Point => {
                return Err(invalid(byte, "after decimal point in numeric literal"));
            }
            Self::Zero | Self::Digits | Self::Fraction if matches!(byte, b'e' | b'E') => {
                Self::Exponent
            }
            Self::Exponent if matches!(byte, b'+' | b'-') => Self::ExponentSign,
            Self::Exponent | Self::ExponentSign | Self::ExponentDigits if digit => {
                Self::ExponentDigits
            }
            Self::Exponent | Self::ExponentSign => {
                return Err(invalid(byte, "in exponent of numeric literal"));
            }
            Self::Zero | Self::Digits | Self::Fraction | Self::ExponentDigits => return Ok(None),
        }))
    }

    fn may_end(self) -> bool {
        match self {
            Self::Zero | Self::Digits | Self::Fraction | Self::ExponentDigits => true,
            Self::Minus | Self::Point | Self::Exponent | Self::ExponentSign => false,
        }
    }
}

impl Scanner {
    /// Whether what was seen is a whole value if nothing follows: only a bare number may be.
    fn ends_here(&self) -> bool {
        self.around.is_empty() && matches!(self.state, State::Number(number) if number.may_end())
    }

    fn step(&mut self, byte: u8) -> Result<Step, String> {
        match self.state {
            State::Value => return self.begin(byte),
            State::ValueOrEnd if byte == b']' => return Ok(self.leave()),
            State::ValueOrEnd => return self.begin(byte),
            State::KeyOrEnd if byte == b'}' => return Ok(self.leave()),
            State::KeyOrEnd | State::Key if byte == b'"' => self.state = State::Text { key: true },
            State::KeyOrEnd | State::Key if !is_space(byte) => {
                return Err(invalid(byte, "looking for beginning of object key string"));
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::Colon if !is_space(byte) => return Err(invalid(byte, "after object key")),
            State::KeyOrEnd | State::Key | State::Colon => {}
            State::AfterValue => return self.after_value(byte),
            State::Text { key } => match byte {
                b'"' if key => self.state = State::Colon,
                b'"' => return Ok(self.ended()),
                b'\\' => self.state = State::Escape { key },
                0..0x20 => return Err(invalid(byte, "in string literal")),
                _ => {}
            },
            State::Escape { key } => {
                self.state = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text { key },
                    b'u' => State::Hex { key, left: 4 },
                    _ => return Err(invalid(byte, "in string escape code")),
                };
            }
            State::Hex { key, left } => {
                if !byte.is_ascii_hexdigit() {
                    return Err(invalid(byte, "in \\u hexadecimal character escape"));
                }
                self.state = match left - 1 {
                    0 => State::Text { key },
                    left => State::Hex { key, left },
                };
            }
            State::Word { word, at } => {
                let expected = word.as_bytes()[at];
                if byte != expected {
                    let expected = char::from(expected);
                    let place = format!("in literal {word} (expecting '{expected}')");
                    return Err(invalid(byte, &place));
                }
                if at + 1 == word.len() {
                    return Ok(self.ended());
                }
                self.state = State::Word { word, at: at + 1 };
            }
            State::Number(number) => match number.step(byte)? {
                Some(number) => self.state = State::Number(number),
                None if self.around.is_empty() => return Ok(Step::Behind),
                None => {
                    self.state = State::AfterValue;
                    return self.after_value(byte);
                }
            },
        }
        Ok(Step::Inside)
    }

    fn begin(&mut self, byte: u8) -> Result<Step, String> {
        let word = |word| State::Word { word, at: 1 };
        self.state = match byte {
            b'{' | b'[' => {
                if self.around.len() == MAX_DEPTH {
                    return Err("exceeded max depth".to_owned());
                }
                self.around.push(byte == b'{');
                if byte == b'{' {
                    State::KeyOrEnd
                } else {
                    State::ValueOrEnd
                }
            }
            b'"' => State::Text { key: false },
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            b't' => word("true"),
            b'f' => word("false"),
            b'n' => word("null"),
            _ if is_space(byte) => self.state,
            _ => return Err(invalid(byte, "looking for beginning of value")),
        };
        Ok(Step::Inside)
    }

    fn after_value(&mut self, byte: u8) -> Result<Step, String> {
        let in_object = self.around.last() == Some(&true);
        self.state = match byte {
            b'}' if in_object => return Ok(self.leave()),
            b']' if !in_object => return Ok(self.leave()),
            b',' if in_object => State::Key,
            b',' => State::Value,
            _ if is_space(byte) => State::AfterValue,
            _ if in_object => return Err(invalid(byte, "after object key:value pair")),
            _ => return Err(invalid(byte, "after array element")),
        };
        Ok(Step::Inside)
    }

    fn leave(&mut self) -> Step {
        self.around.pop();
        self.ended()
    }

    /// A value ended with this byte.
    fn ended(&mut self) -> Step {
        self.state = State::AfterValue;
        if self.around.is_empty() {
            Step::Last
        } else {
            Step::Inside
        }
    }
}

fn invalid(byte: u8, place: &str) -> String {
    let shown = match byte {
        b'"' => "\"".to_owned(),
        _ => char::from(byte).escape_debug().to_string(),
    };
    format!("invalid character '{shown}' {place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All values of `text`, given in pieces of `size`, and the error behind them.
    fn read(text: &str, size: usize) -> (Vec<String>, Option<String>) {
        let mut reader = Reader::default();
        let mut pieces = text.as_bytes().chunks(size);
        let (mut values, mut ended) = (Vec::new(), false);
        loop {
            match reader.next(ended) {
                Ok(Next::Value(value)) => {
                    values.push(String::from_utf8(value.to_vec()).expect("text"));
                }
                Ok(Next::End) => return (values, None),
                Err(error) => return (values, Some(error)),
                Ok(Next::More) => match pieces.next() {
                    Some(piece) => reader.push(piece),
                    None => ended = true,
                },
            }
        }
    }

    #[test]
    fn values_are_found_however_they_are_cut() {
        let text = " {\"a\":[1,-2.5e+3, {} ,[]],\"\\u00e9\\\"\":null}\n{}true \"x\"7";
        for size in 1..=text.len() {
            let (values, error) = read(text, size);
            let expected = [
                "{\"a\":[1,-2.5e+3, {} ,[]],\"\\u00e9\\\"\":null}",
                "{}",
                "true",
                "\"x\"",
                "7",
            ];
            assert_eq!(values, expected, "pieces of {size}");
            assert_eq!(error, None);
        }
    }

    #[test]
    fn what_is_no_json_is_named() {
        let cases = [
            ("{", "unexpected EOF"),
            ("[1,", "unexpected EOF"),
            ("-", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            (
                "{1",
                "invalid character '1' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("{\"a\" 1", "invalid character '1' after object key"),
            (
                "{\"a\":1 2",
                "invalid character '2' after object key:value pair",
            ),
            ("[1}", "invalid character '}' after array element"),
            (
                "trux",
                "invalid character 'x' in literal true (expecting 'e')",
            ),
            ("01 {", "unexpected EOF"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "1ex",
                "invalid character 'x' in exponent of numeric literal",
            ),
            ("-x", "invalid character 'x' in numeric literal"),
            ("\"\n", "invalid character '\\n' in string literal"),
            ("\"\\x", "invalid character 'x' in string escape code"),
            (
                "\"\\u00g",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text, 1).1.as_deref(), Some(expected), "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1);
        assert_eq!(read(&deep, 100).1.as_deref(), Some("exceeded max depth"));
    }
}
