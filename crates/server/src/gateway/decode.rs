//! JSON into messages, by protojson's rules: both names of a field, a field once, one member of a
//! oneof, null for "not set", unknown names passed over.
//!
//! Errors are worded as protojson words them, with the place.
//!
//! Source: spec/v3-api.md §1.4; the ProtoJSON format of protobuf.dev.

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use super::scalar;

/// Messages within messages. The services read about as deep.
const MAX_DEPTH: usize = 90;

/// Reads the one JSON value that `text` is, as [`super::scan::Reader`] found it.
///
/// # Errors
/// What is wrong with it, for the client.
pub(super) fn message(text: &[u8], of: MessageDescriptor) -> Result<DynamicMessage, String> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let valid = String::from_utf8_lossy(&text[..error.valid_up_to()]);
        let place = place(&valid, valid.len());
        format!("proto:\u{a0}syntax error {place}: invalid UTF-8 in string")
    })?;
    let mut decoder = Decoder { text, at: 0 };
    let mut message = DynamicMessage::new(of);
    decoder.fields(&mut message, MAX_DEPTH)?;
    Ok(message)
}

/// A part of the text: a bracket or a scalar.
#[derive(Clone, Copy)]
struct Token<'a> {
    at: usize,
    raw: &'a str,
}

struct Decoder<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Decoder<'a> {
    /// The next token. The text is known to be a JSON value, so what parts tokens says nothing.
    fn token(&mut self) -> Token<'a> {
        let parts = |c: char| c.is_ascii_whitespace() || c == ',' || c == ':';
        let rest = self.text[self.at..].trim_start_matches(parts);
        let at = self.text.len() - rest.len();
        let len = match rest.as_bytes().first() {
            None => 0,
            Some(b'{' | b'}' | b'[' | b']') => 1,
            Some(b'"') => text_len(rest),
            Some(_) => rest
                .find(|c| parts(c) || matches!(c, '}' | ']'))
                .unwrap_or(rest.len()),
        };
        self.at = at + len;
        let raw = &rest[..len];
        Token { at, raw }
    }

    fn peek(&mut self) -> Token<'a> {
        let before = self.at;
        let token = self.token();
        self.at = before;
        token
    }

    /// Passes over one value.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.token().raw {
                "{" | "[" => depth += 1,
                "}" | "]" => depth = depth.saturating_sub(1),
                // Behind the end; not in a whole value.
                "" => return,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Reads an object into a message that may hold `depth` levels of others.
    fn fields(&mut self, message: &mut DynamicMessage, depth: usize) -> Result<(), String> {
        let open = self.token();
        if open.raw != "{" {
            return Err(self.unexpected(open));
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Err("proto:\u{a0}exceeded max recursion depth".to_owned());
        };
        let descriptor = message.descriptor();
        let mut seen: Vec<u32> = Vec::new();
        loop {
            let name = self.token();
            if !name.raw.starts_with('"') {
                return Ok(());
            }
            let Some(plain) = scalar::text(name.raw) else {
                return Err(self.wrong(name, &format!("invalid field name {}", name.raw)));
            };
            let field = descriptor
                .get_field_by_json_name(&plain)
                .or_else(|| descriptor.get_field_by_name(&plain));
            let Some(field) = field else {
                self.skip();
                continue;
            };
            if seen.contains(&field.number()) {
                return Err(self.wrong(name, &format!("duplicate field {}", name.raw)));
            }
            seen.push(field.number());
            if self.peek().raw == "null" {
                self.skip();
                continue;
            }
            self.refuse_second(name, &field, message)?;
            self.field(&field, message, depth)?;
        }
    }

    /// Refuses a field whose oneof has been given another one.
    fn refuse_second(
        &self,
        name: Token<'_>,
        field: &FieldDescriptor,
        message: &DynamicMessage,
    ) -> Result<(), String> {
        let Some(oneof) = field.containing_oneof() else {
            return Ok(());
        };
        if !oneof.fields().any(|other| message.has_field(&other)) {
            return Ok(());
        }
        let (raw, full) = (name.raw, oneof.full_name());
        Err(self.wrong(
            name,
            &format!("error parsing {raw}, oneof {full} is already set"),
        ))
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        depth: usize,
    ) -> Result<(), String> {
        if !field.is_list() {
            if let Some(value) = self.value(field, depth)? {
                message.set_field(field, value);
            }
            return Ok(());
        }
        let open = self.token();
        if open.raw != "[" {
            return Err(self.unexpected(open));
        }
        let mut list = Vec::new();
        while !matches!(self.peek().raw, "]" | "") {
            list.extend(self.value(field, depth)?);
        }
        self.token();
        message.set_field(field, Value::List(list));
        Ok(())
    }

    /// Reads one value; `None` for the name of no enum value.
    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Result<Option<Value>, String> {
        let kind = field.kind();
        if let Kind::Message(descriptor) = &kind {
            let mut inner = DynamicMessage::new(descriptor.clone());
            self.fields(&mut inner, depth)?;
            return Ok(Some(Value::Message(inner)));
        }
        let token = self.token();
        if let Kind::Enum(descriptor) = &kind
            && let Some(name) = scalar::text(token.raw)
        {
            let value = descriptor.get_value_by_name(&name);
            return Ok(value.map(|value| Value::EnumNumber(value.number())));
        }
        match scalar::value(token.raw, &kind) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(
                token,
                &format!(
                    "invalid value for {} field {}: {}",
                    scalar::kind_name(&kind),
                    field.json_name(),
                    token.raw
                ),
            )),
        }
    }

    fn unexpected(&self, token: Token<'_>) -> String {
        let place = place(self.text, token.at);
        format!(
            "proto:\u{a0}syntax error {place}: unexpected token {}",
            token.raw
        )
    }

    fn wrong(&self, token: Token<'_>, what: &str) -> String {
        format!("proto:\u{a0}{}: {what}", place(self.text, token.at))
    }
}

/// Length of the string that `text` begins with, its quotes included.
fn text_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Where in the text, counted from 1, columns in characters.
fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("(line {line}:{column})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost_reflect::DescriptorPool;
    use quorate_proto::etcdserverpb::{Compare, RangeRequest, TxnRequest, compare::TargetUnion};

    fn read<M: Message + Default>(name: &str, text: &str) -> Result<M, String> {
        let pool = DescriptorPool::decode(quorate_proto::DESCRIPTORS).expect("descriptors");
        let of = pool.get_message_by_name(&format!("etcdserverpb.{name}"));
        let message = message(text.as_bytes(), of.expect("a message"))?;
        Ok(M::decode(&message.encode_to_vec()[..]).expect("the same message"))
    }

    #[test]
    fn fields_are_found_by_both_names_and_values_in_all_their_forms() {
        let text = r#"{"key":"YQ", "rangeEnd":"_-8=", "min_mod_revision":"12", "limit":1.5e1,
            "unknown":{"a":[1,{"b":"}"}]}, "sort_order":"DESCEND", "sortTarget":3,
            "keys_only":true, "count_only":null}"#;
        let request: RangeRequest = read("RangeRequest", text).expect("a request");
        let expected = RangeRequest {
            key: "a".into(),
            range_end: vec![0xff, 0xef].into(),
            min_mod_revision: 12,
            limit: 15,
            sort_order: 2,
            sort_target: 3,
            keys_only: true,
            ..RangeRequest::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_oneof_may_be_its_default_and_a_list_null() {
        let text = r#"{"compare":[{"version":0},{"version":null,"value":""}],"success":null}"#;
        let request: TxnRequest = read("TxnRequest", text).expect("a request");
        let compare = |target| Compare {
            target_union: Some(target),
            ..Compare::default()
        };
        let expected = [
            compare(TargetUnion::Version(0)),
            compare(TargetUnion::Value("".into())),
        ];
        assert_eq!(request.compare, expected);
    }

    #[test]
    fn an_unknown_name_of_an_enum_is_passed_over() {
        let request: RangeRequest =
            read("RangeRequest", r#"{"sort_order":"UP"}"#).expect("a request");
        assert_eq!(request, RangeRequest::default());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let nested = format!(
            "{}{{}}{}",
            "{\"success\":[{\"request_txn\":".repeat(60),
            "}]}".repeat(60)
        );
        let cases = [
            ("[]", "syntax error (line 1:1): unexpected token ["),
            (
                "{\n \"compare\":{}}",
                "syntax error (line 2:12): unexpected token {",
            ),
            (
                "{\"compare\":[null]}",
                "syntax error (line 1:13): unexpected token null",
            ),
            (
                "{\"é\":1,\"success\":[],\"success\":[]}",
                "(line 1:21): duplicate field \"success\"",
            ),
            (
                "{\"compare\":[{\"lease\":1,\"version\":2}]}",
                "(line 1:24): error parsing \"version\", oneof \
                 etcdserverpb.Compare.target_union is already set",
            ),
            (
                "{\"compare\":[{\"lease\":1.5}]}",
                "(line 1:22): invalid value for int64 field lease: 1.5",
            ),
            (
                "{\"compare\":[{\"result\":true}]}",
                "(line 1:23): invalid value for enum field result: true",
            ),
            (&nested, "exceeded max recursion depth"),
        ];
        for (text, expected) in cases {
            let error = read::<TxnRequest>("TxnRequest", text).expect_err("refused");
            assert_eq!(error, format!("proto:\u{a0}{expected}"), "{text}");
        }
    }
}
