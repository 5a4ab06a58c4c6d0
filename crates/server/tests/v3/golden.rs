//! Runs the scripts of `testdata/golden/v3`, each on a fresh member.
//!
//! A script is blocks of requests, `---`, and what they printed, with an empty line behind each.
//! A request is `Service/Method` and its message in protobuf's text form. In front may stand
//! `[name=value]`, a piece of metadata, or `name:`, a stream of that name: it is opened by the
//! first request on it, and every request on it prints all that the server has sent there since.
//! `name` alone only prints. `ZEROS(n)` is a value of n zero bytes, `TIMES(n field)` a field n times. `UPDATE_GOLDEN=1` accepts what is printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use tonic::Status;

use crate::member::Member;
use crate::wire::{Stream, Wire, method};

/// The watcher that shows that nothing else is on its way.
const BARRIER: i64 = 1 << 60;
/// A zero byte as text.
const ZERO: &str = "\\000";

#[test]
fn golden_scripts() {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden/v3"
    ));
    let mut scripts: Vec<PathBuf> = folder
        .read_dir()
        .expect("scripts")
        .map(|entry| entry.expect("a file").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut wrong = Vec::new();
    for script in &scripts {
        let expected = std::fs::read_to_string(script).expect("a script");
        let printed = crate::member::block_on(replay(&expected));
        if printed == expected {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(script, &printed).expect("a script that can be written");
        } else {
            wrong.push(format!(
                "{}:\n{}",
                script.display(),
                difference(&expected, &printed)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(expected: &str, printed: &str) -> String {
    let pairs = expected.lines().map(Some).chain(std::iter::repeat(None));
    let different = printed
        .lines()
        .zip(pairs)
        .find(|(new, old)| Some(*new) != *old);
    match different {
        Some((new, old)) => format!(
            "  expected: {}\n  printed:  {new}",
            old.unwrap_or("nothing")
        ),
        None => "  printed less than expected".to_owned(),
    }
}

/// A session with one member.
struct Session {
    member: Member,
    wire: Wire,
    streams: BTreeMap<String, Stream>,
}

async fn replay(script: &str) -> String {
    let member = Member::start().await;
    let wire = Wire(member.channel().await);
    let mut session = Session {
        member,
        wire,
        streams: BTreeMap::new(),
    };
    let mut printed = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        printed.push_str(line);
        printed.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut requests = vec![line.to_owned()];
        for line in lines.by_ref() {
            printed.push_str(line);
            printed.push('\n');
            match line {
                "---" => break,
                _ if line.starts_with(' ') => {
                    requests
                        .last_mut()
                        .expect("a request to go on with")
                        .push_str(line);
                }
                _ => requests.push(line.to_owned()),
            }
        }
        for request in requests {
            for answer in session.perform(&request).await {
                printed.push_str(&answer);
                printed.push('\n');
            }
        }
        // What was printed before, up to the empty line.
        if lines.by_ref().find(|line| line.is_empty()).is_some() {
            printed.push('\n');
        }
    }
    let Session {
        member,
        wire,
        streams,
    } = session;
    drop((wire, streams));
    member.stop().await;
    printed
}

impl Session {
    async fn perform(&mut self, line: &str) -> Vec<String> {
        if let Some(rest) = line.strip_prefix('[') {
            let (metadata, request) = rest.split_once("] ").expect("[name=value] request");
            let (name, value) = metadata.split_once('=').expect("name=value");
            let name: &'static str = name.to_owned().leak();
            let value = value.replace("\\xff", "\u{0}").into_bytes();
            let value = value
                .into_iter()
                .map(|b| if b == 0 { 0xff } else { b })
                .collect();
            return vec![self.unary(request, &[(name, value)]).await];
        }
        let name = line.split([' ', ':']).next().expect("a word");
        if self.streams.contains_key(name) && line == name {
            return self.drain(name).await;
        }
        match line.split_once(": ") {
            Some((name, request)) if !name.contains(['/', ' ']) => self.stream(name, request).await,
            _ => vec![self.unary(line, &[]).await],
        }
    }

    async fn unary(&self, line: &str, metadata: &[(&'static str, Vec<u8>)]) -> String {
        let (method, request) = parse(line);
        let answer = self.wire.unary(&method, &request, metadata).await;
        answer.map_or_else(|status| failed(&status), |answer| self.print(answer))
    }

    async fn stream(&mut self, name: &str, line: &str) -> Vec<String> {
        let (method, request) = parse(line);
        if !self.streams.contains_key(name) {
            let stream = self.wire.open(&method).await;
            self.streams.insert(name.to_owned(), stream);
        }
        self.streams[name].send(&request).await;
        if method.name() == "Watch" {
            return self.drain(name).await;
        }
        let answer = self.streams.get_mut(name).expect("opened").next().await;
        vec![self.answered(answer)]
    }

    /// Prints what a Watch stream has sent, and is about to send.
    async fn drain(&mut self, name: &str) -> Vec<String> {
        let stream = self.streams.get_mut(name).expect("an open stream");
        let create = format!("create_request {{ key: '\\377\\000barrier' watch_id: {BARRIER} }}");
        let cancel = format!("cancel_request {{ watch_id: {BARRIER} }}");
        for request in [create, cancel] {
            stream.send(&text(&stream.method.clone(), &request)).await;
        }
        let mut printed = Vec::new();
        loop {
            let answer = self
                .streams
                .get_mut(name)
                .expect("an open stream")
                .next()
                .await;
            match &answer {
                Ok(Some(message)) if field(message, "watch_id") == Value::I64(BARRIER) => {
                    if field(message, "canceled") == Value::Bool(true) {
                        return printed;
                    }
                }
                Ok(Some(_)) => printed.push(self.answered(answer)),
                Ok(None) | Err(_) => {
                    printed.push(self.answered(answer));
                    return printed;
                }
            }
        }
    }

    fn answered(&self, answer: Result<Option<DynamicMessage>, Status>) -> String {
        match answer {
            Ok(Some(message)) => self.print(message),
            Ok(None) => "the stream ended".to_owned(),
            Err(status) => failed(&status),
        }
    }

    /// An answer as text, with a name for what differs from run to run.
    fn print(&self, answer: DynamicMessage) -> String {
        let ids = [
            (
                format!("cluster_id:{}", self.member.node.cluster_id()),
                "cluster_id:CLUSTER",
            ),
            (
                format!("member_id:{}", self.member.node.member_id()),
                "member_id:MEMBER",
            ),
            (format!("ID:{}", self.member.node.member_id()), "ID:MEMBER"),
            (self.member.url.clone(), "URL"),
        ];
        let text = answer.to_text_format();
        let text = ids
            .iter()
            .fold(text, |text, (from, to)| text.replace(from, to));
        short(&text.replace("cluster_id:CLUSTER,member_id:MEMBER,", "IDS,"))
    }
}

/// Long values as `ZEROS(length)`.
fn short(text: &str) -> String {
    let literals = text.split('"').map(|literal| {
        let zeros = literal.len() / ZERO.len();
        if zeros > 16 && literal == ZERO.repeat(zeros) {
            format!("ZEROS({zeros})")
        } else {
            literal.to_owned()
        }
    });
    literals.collect::<Vec<_>>().join("\"")
}

fn field(message: &DynamicMessage, name: &str) -> Value {
    message
        .get_field_by_name(name)
        .expect("a field")
        .into_owned()
}

fn failed(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn parse(line: &str) -> (MethodDescriptor, DynamicMessage) {
    let (name, message) = line.split_once(' ').unwrap_or((line, ""));
    let method = method(name);
    let message = text(&method, message);
    (method, message)
}

fn text(method: &MethodDescriptor, text: &str) -> DynamicMessage {
    let text = expand(text, "ZEROS(", |count| {
        format!("'{}'", ZERO.repeat(number(count)))
    });
    let text = expand(&text, "TIMES(", |repeated| {
        let (count, field) = repeated.split_once(' ').expect("TIMES(count field)");
        format!("{field} ").repeat(number(count))
    });
    DynamicMessage::parse_text_format(method.input(), &text).expect("a request")
}

/// Replaces each `name` argument `)` by what it stands for.
fn expand(text: &str, name: &str, meaning: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(name);
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (argument, rest) = part.split_once(')').expect("a closing parenthesis");
        expanded.push_str(&meaning(argument));
        expanded.push_str(rest);
    }
    expanded
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}
