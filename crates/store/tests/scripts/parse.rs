//! The commands of a script.
//!
//! ```text
//! put KEY [VALUE] [lease=N] [prev] [ignore_value] [ignore_lease]
//! get RANGE [limit=N] [revision=N] [sort=TARGET] [order=none|ascend|descend] [keys_only]
//!           [count_only] [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! del RANGE [prev]
//! txn | read_txn      followed by indented lines, which nest:
//!   if TARGET(RANGE) =|!=|<|> OPERAND
//!   then COMMAND
//!   else COMMAND
//! compact N | purge N | grant ID ttl=S | revoke ID
//! tick MS | expire MS                             set cluster time
//! publish ID NAME [peer=URL] [client=URL]
//! alarm raise|clear ID nospace|corrupt [itself]
//! set PATH VALUE [ttl=S] [refresh] | mkdir PATH [ttl=S] | rm PATH [recursive]      v2
//! history N | live_bytes | segments | leases | deadline | keys | revision | members
//! alarms
//! reload N | walk begin | walk N | load           N keys a chunk
//! limits max_txn_ops=N
//! ```
//! TARGET is `key`, `version`, `create`, `mod`, `value`, `lease` or a number. RANGE is `key`,
//! `from..to`, `from..` or `..`. Bytes are text with `\x00`, `""` for none, `c{40}` for a run.

use bytes::Bytes;
use quorate_store::command::{
    Blob, Body, Compare, DeleteRange, Limits, Op, Operand, Put, Range, Relation, Sort, Txn,
};
use quorate_store::{Alarm, AlarmBy, AlarmKind, KeyRange, Life, MemberChange, Refusal, Role, tree};

/// What a line asks for.
pub(crate) enum Command {
    /// At this cluster time, in milliseconds, from now on.
    Body(Option<u64>, Body),
    Get(Range),
    ReadTxn(Txn),
    Limits(Limits),
    Purge(usize),
    History(u64),
    Show(String),
    Reload(usize),
    WalkBegin,
    Walk(usize),
    Load,
}

pub(crate) struct Parsed {
    pub(crate) text: String,
    /// The script says that it is.
    pub(crate) refused: bool,
    /// Some requests are refused before they are commands.
    pub(crate) command: Result<Command, Refusal>,
}

/// Why a line is no command: the script is wrong, or the request is.
enum Wrong {
    Script(String),
    Request(Refusal),
}

type Read<T> = Result<T, Wrong>;

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self::Request(refusal)
    }
}

fn wrong<T>(why: impl Into<String>) -> Read<T> {
    Err(Wrong::Script(why.into()))
}

/// Reads a block of commands.
pub(crate) fn block(lines: &[&str]) -> Result<Vec<Parsed>, String> {
    let mut rest = lines;
    let mut parsed = Vec::new();
    while let Some((first, _)) = rest.split_first() {
        let text = (*first).to_owned();
        let refused = first.starts_with('!');
        let command = match command(&mut rest) {
            Ok(command) => Ok(command),
            Err(Wrong::Request(refusal)) => {
                // What was left of a txn.
                rest = &rest[rest.iter().take_while(|line| line.starts_with(' ')).count()..];
                Err(refusal)
            }
            Err(Wrong::Script(why)) => return Err(format!("{text:?}: {why}")),
        };
        parsed.push(Parsed {
            text,
            refused,
            command,
        });
    }
    Ok(parsed)
}

/// The words of a line: first those without a name, then the options.
struct Words<'a> {
    words: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

const FLAGS: [&str; 7] = [
    "prev",
    "ignore_value",
    "ignore_lease",
    "keys_only",
    "count_only",
    "refresh",
    "recursive",
];

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (mut words, mut options) = (Vec::new(), Vec::new());
        for word in line.trim_start_matches(['!', ' ']).split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) if !name.is_empty() && name != "!" => {
                    options.push((name, value));
                }
                None if FLAGS.contains(&word) => options.push((word, "")),
                _ => words.push(word),
            }
        }
        words.reverse();
        Self { words, options }
    }

    fn next(&mut self) -> Read<&'a str> {
        self.words
            .pop()
            .ok_or_else(|| Wrong::Script("too few words".to_owned()))
    }

    fn bytes(&mut self) -> Read<Bytes> {
        literal(self.next()?)
    }

    fn number(&mut self) -> Read<i64> {
        number(self.next()?)
    }

    fn size(&mut self) -> Read<usize> {
        Ok(self.number()? as usize)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.option(name).is_some()
    }

    fn option(&mut self, name: &str) -> Option<&'a str> {
        let at = self
            .options
            .iter()
            .position(|(option, _)| *option == name)?;
        Some(self.options.remove(at).1)
    }

    fn numbered(&mut self, name: &str) -> Read<i64> {
        self.option(name).map_or(Ok(0), number)
    }

    fn finish(self) -> Read<()> {
        if self.words.is_empty() && self.options.is_empty() {
            Ok(())
        } else {
            wrong(format!("what are {:?} {:?}?", self.words, self.options))
        }
    }
}

fn command(lines: &mut &[&str]) -> Read<Command> {
    let (line, rest) = lines.split_first().expect("a line was seen");
    *lines = rest;
    let mut words = Words::of(line);
    let name = words.next()?;
    let command = match name {
        "put" => Body::Put(put(&mut words)?).into(),
        "del" => Body::DeleteRange(delete(&mut words)?).into(),
        "get" => Command::Get(range(&mut words)?),
        "txn" => Body::Txn(Box::new(txn(lines, 0)?)).into(),
        "read_txn" => Command::ReadTxn(txn(lines, 0)?),
        "compact" => Body::Compact {
            revision: words.number()?,
        }
        .into(),
        "grant" => {
            let (id, ttl_s) = (words.number()?, words.numbered("ttl")?);
            Body::LeaseGrant { id, ttl_s }.into()
        }
        "revoke" => Body::LeaseRevoke {
            id: words.number()?,
        }
        .into(),
        "tick" => Command::Body(Some(words.size()? as u64), Body::Tick),
        "expire" => Command::Body(Some(words.size()? as u64), Body::Expire),
        "alarm" => alarm(&mut words)?.into(),
        "member" => member(&mut words)?.into(),
        "set" | "mkdir" | "rm" => Body::Tree(tree(name, &mut words)?).into(),
        "purge" => Command::Purge(words.size()?),
        "history" => Command::History(words.size()? as u64),
        "reload" => Command::Reload(words.size()?),
        "load" => Command::Load,
        "walk" => match words.next()? {
            "begin" => Command::WalkBegin,
            chunk => Command::Walk(number(chunk)? as usize),
        },
        "limits" => Command::Limits(Limits {
            max_txn_ops: words.numbered("max_txn_ops")? as usize,
        }),
        show => Command::Show(show.to_owned()),
    };
    words.finish()?;
    Ok(command)
}

fn alarm(words: &mut Words<'_>) -> Read<Body> {
    let (action, member) = (words.next()?, words.size()? as u64);
    let kind = match words.next()? {
        "nospace" => AlarmKind::NoSpace,
        "corrupt" => AlarmKind::Corrupt,
        other => return Err(Wrong::Script(format!("{other:?} is no alarm"))),
    };
    Ok(Body::Alarm {
        alarm: Alarm { member, kind },
        raise: action == "raise",
        by: match words.next() {
            Ok("itself") => AlarmBy::Member,
            Ok(other) => return Err(Wrong::Script(format!("{other:?} raises no alarm"))),
            Err(_) => AlarmBy::Client,
        },
    })
}

fn put(words: &mut Words<'_>) -> Read<Put> {
    Ok(Put {
        key: words.bytes()?,
        value: Blob::new(words.bytes().unwrap_or_default()),
        lease: words.numbered("lease")?,
        prev_kv: words.flag("prev"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
    })
}

fn delete(words: &mut Words<'_>) -> Read<DeleteRange> {
    Ok(DeleteRange {
        range: key_range(words.next()?)?,
        prev_kv: words.flag("prev"),
    })
}

fn range(words: &mut Words<'_>) -> Read<Range> {
    let range = key_range(words.next()?)?;
    let order = match words.option("order") {
        None | Some("none") => 0,
        Some("ascend") => 1,
        Some("descend") => 2,
        Some(other) => number(other)? as i32,
    };
    const TARGETS: [&str; 5] = ["key", "version", "create", "mod", "value"];
    let target = match words.option("sort") {
        None => 0,
        Some(name) => match TARGETS.iter().position(|target| *target == name) {
            Some(target) => target as i32,
            None => number(name)? as i32,
        },
    };
    Ok(Range {
        range,
        sort: Sort::from_wire(order, target)?,
        limit: words.numbered("limit")?,
        revision: words.numbered("revision")?,
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        min_mod: words.numbered("min_mod")?,
        max_mod: words.numbered("max_mod")?,
        min_create: words.numbered("min_create")?,
        max_create: words.numbered("max_create")?,
    })
}

/// The lines that are indented deeper than the txn's own.
fn txn(lines: &mut &[&str], indent: usize) -> Read<Txn> {
    let mut txn = Txn::default();
    while let Some((line, rest)) = lines.split_first() {
        let deeper = line.len() - line.trim_start().len();
        if deeper <= indent {
            break;
        }
        *lines = rest;
        let line = line.trim_start();
        let (branch, line) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = Words::of(line);
        if branch == "if" {
            txn.compare.push(compare(&mut words)?);
            words.finish()?;
            continue;
        }
        let op = match words.next()? {
            "put" => Op::Put(put(&mut words)?),
            "del" => Op::DeleteRange(delete(&mut words)?),
            "get" => Op::Range(range(&mut words)?),
            "txn" => Op::Txn(Box::new(self::txn(lines, deeper)?)),
            other => return wrong(format!("what is {other:?} in a txn?")),
        };
        words.finish()?;
        match branch {
            "then" => txn.success.push(op),
            "else" => txn.failure.push(op),
            other => return wrong(format!("what is {other:?}?")),
        }
    }
    Ok(txn)
}

fn compare(words: &mut Words<'_>) -> Read<Compare> {
    let target = words.next()?;
    let relation = match words.next()? {
        "=" => Relation::Equal,
        "!=" => Relation::NotEqual,
        "<" => Relation::Less,
        ">" => Relation::Greater,
        other => return wrong(format!("what is {other:?}?")),
    };
    let operand = words.next()?;
    let Some((target, range)) = target.trim_end_matches(')').split_once('(') else {
        return wrong("a target is like mod(k)");
    };
    Ok(Compare {
        range: key_range(range)?,
        relation,
        operand: match target {
            "version" => Operand::Version(number(operand)?),
            "create" => Operand::Create(number(operand)?),
            "mod" => Operand::Mod(number(operand)?),
            "lease" => Operand::Lease(number(operand)?),
            "value" => Operand::Value(literal(operand)?),
            other => return wrong(format!("what is {other:?}?")),
        },
    })
}

fn tree(name: &str, words: &mut Words<'_>) -> Read<tree::Request> {
    let path = words.bytes()?;
    let Ok(path) = tree::Path::parse(path) else {
        return wrong("no path");
    };
    let op = if name == "rm" {
        tree::Op::Delete {
            dir: true,
            recursive: words.flag("recursive"),
        }
    } else {
        let dir = name == "mkdir";
        let value = if dir { Bytes::new() } else { words.bytes()? };
        let ttl_s = words.option("ttl").map(number).transpose()?;
        let write = tree::Write {
            value: Blob::new(value),
            ttl_s: ttl_s.map(|ttl_s| ttl_s as u64),
            refresh: words.flag("refresh"),
        };
        tree::Op::Set { dir, write }
    };
    Ok(tree::Request { path, op })
}

fn member(words: &mut Words<'_>) -> Read<Body> {
    let what = words.next()?.to_owned();
    let mut urls = |name| words.option(name).map(str::to_owned).into_iter().collect();
    let (peer_urls, client_urls) = (urls("peer"), urls("client"));
    let learner = words.option("role") == Some("learner");
    let id = words.number()? as u64;
    let change = match &what[..] {
        "add" => MemberChange::Add {
            peer_urls,
            role: if learner {
                Role::Learner
            } else {
                Role::Joining
            },
            max_learners: 1,
        },
        "remove" => MemberChange::Remove,
        "update" => MemberChange::Update { peer_urls },
        "promote" => MemberChange::Promote,
        "alone" => MemberChange::Alone,
        "publish" => MemberChange::Publish {
            name: words.next()?.to_owned(),
            client_urls,
            life: Life {
                directory: words.number()? as u128,
                incarnation: words.number()? as u64,
            },
        },
        _ => return wrong(format!("what is {what:?}?")),
    };
    Ok(Body::Member { id, change })
}

fn key_range(word: &str) -> Read<KeyRange> {
    let (start, end) = match word.split_once("..") {
        None => (literal(word)?, Bytes::new()),
        Some(("", "")) => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        Some((start, "")) => (literal(start)?, Bytes::from_static(b"\0")),
        Some((start, end)) => (literal(start)?, literal(end)?),
    };
    Ok(KeyRange::from_wire(start, end)?)
}

fn number(word: &str) -> Read<i64> {
    word.parse()
        .or_else(|_| wrong(format!("{word:?} is no number")))
}

fn literal(word: &str) -> Read<Bytes> {
    if word == "\"\"" {
        return Ok(Bytes::new());
    }
    if let Some((repeated, count)) = word.strip_suffix('}').and_then(|word| word.split_once('{')) {
        return Ok(literal(repeated)?.repeat(number(count)? as usize).into());
    }
    let mut parts = word.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => bytes.push(byte),
            None => return wrong(format!("{word:?} has a bad \\x")),
        }
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Ok(bytes.into())
}
