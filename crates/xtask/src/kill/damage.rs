//! Damages the log of a killed server and looks at what the next start makes of it.
//!
//! Damage in a batch that a sync has covered must be refused, by file and offset; of the last batch
//! alone nobody can say whether a sync had covered it, so it is dropped, and said to be.
//!
//! Knows of `docs/formats/log.md` where a segment's batches start and end, and no more.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::member::{self, Config, Member};
use crate::{tools, workspace};

const SEGMENT: &str = "0000000001.segment";
/// Bytes before the first batch.
const SEGMENT_HEAD: u64 = 64;
/// Bytes of a batch before its records; all of it is a multiple of [`BATCH_ALIGN`] long.
const BATCH_HEAD: u64 = 32;
const BATCH_ALIGN: u64 = 8;
/// Where a batch's header holds the length of the records.
const LENGTH_AT: u64 = 12;
/// Keys that are written, each in a batch of its own.
const KEYS: usize = 12;
/// Bits that are flipped, each in a copy of its own.
const FLIPS: usize = 8;
/// How long a server may take to refuse a directory.
const REFUSAL: Duration = Duration::from_secs(30);

/// What lies in one batch.
struct Batch {
    offset: u64,
    records: u64,
}

impl Batch {
    fn bytes(&self) -> u64 {
        (BATCH_HEAD + self.records).next_multiple_of(BATCH_ALIGN)
    }
}

/// Tries all kinds of damage on a server's directory and says what was tried.
pub(crate) fn check(server: &Path) -> Result<String> {
    let (original, batches) = killed_while_busy(server)?;
    let (last, synced) = batches.split_last().context("a log without batches")?;
    ensure!(
        synced.len() >= KEYS,
        "{} batches for {KEYS} keys",
        batches.len()
    );
    for _ in 0..FLIPS {
        let batch = &synced[fastrand::usize(..synced.len())];
        let (at, bit) = (
            batch.offset + fastrand::u64(..batch.bytes()),
            fastrand::u8(..8),
        );
        println!(
            "flipping bit {bit} at {at}, in the synced batch at {}",
            batch.offset
        );
        let damaged = copy(&original, |segment| flip(segment, at, bit))?;
        is_refused(server, &damaged, Some(batch.offset))?;
    }
    let length = fs::metadata(member::data_dir(&original).join(SEGMENT))?.len();
    for shorter in [synced[synced.len() / 2].offset + 4, length - 4096] {
        println!("shortening the segment to {shorter} bytes");
        let damaged = copy(&original, |segment| Ok(segment.set_len(shorter)?))?;
        is_refused(server, &damaged, None)?;
    }
    let (at, bit) = (
        last.offset + BATCH_HEAD + fastrand::u64(..last.records),
        fastrand::u8(..8),
    );
    println!(
        "flipping bit {bit} at {at}, in the last batch at {}",
        last.offset
    );
    let damaged = copy(&original, |segment| flip(segment, at, bit))?;
    is_dropped(server, &damaged, last, last_index(server, &original)? - 1)?;
    Ok(format!(
        "{FLIPS} flipped bits and 2 short segments refused, a torn batch dropped"
    ))
}

/// A directory whose last batch holds the last key: the server was killed before it wrote an empty
/// one behind it.
fn killed_while_busy(server: &Path) -> Result<(PathBuf, Vec<Batch>)> {
    for _ in 0..10 {
        let dir = workspace::empty_dir("damage")?;
        let mut member = Member::start(&Config {
            server,
            dir: &dir,
            flags: &[],
        })?;
        for key in 0..KEYS {
            put(member.client_port, key)?;
        }
        member.kill()?;
        let batches = batches(&member::data_dir(&dir).join(SEGMENT))?;
        if batches.last().is_some_and(|batch| batch.records > 0) {
            return Ok((dir, batches));
        }
    }
    bail!("ten servers in a row wrote an empty batch before they could be killed");
}

fn put(port: u16, key: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let mut http = crate::http::Http::connect(port).await?;
        http.request("PUT", &format!("/v2/keys/key-{key}"), "value=x")
            .await
    })?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.body);
    Ok(())
}

/// The batches of a segment, which all start with the same mark.
fn batches(segment: &Path) -> Result<Vec<Batch>> {
    let file = File::open(segment)?;
    let word = |at: u64| -> Result<[u8; 4]> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    };
    let mark = word(SEGMENT_HEAD)?;
    let (mut batches, mut offset) = (Vec::new(), SEGMENT_HEAD);
    while word(offset)? == mark {
        let records = u32::from_le_bytes(word(offset + LENGTH_AT)?).into();
        let batch = Batch { offset, records };
        offset += batch.bytes();
        batches.push(batch);
    }
    Ok(batches)
}

fn flip(segment: &File, at: u64, bit: u8) -> Result<()> {
    let mut byte = [0];
    segment.read_exact_at(&mut byte, at)?;
    segment.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    Ok(())
}

/// A copy of the directory whose first segment went through `damage`.
fn copy(original: &Path, damage: impl FnOnce(&File) -> Result<()>) -> Result<PathBuf> {
    let dir = workspace::empty_dir("damaged")?;
    let from = member::data_dir(original);
    tools::run(
        Command::new("cp")
            .args(["-r", "--sparse=always"])
            .arg(from)
            .arg(&dir),
    )?;
    let segment = member::data_dir(&dir).join(SEGMENT);
    damage(&File::options().read(true).write(true).open(segment)?)?;
    Ok(dir)
}

/// The server ends by itself, and it and `util verify` name the segment and the offset.
fn is_refused(server: &Path, dir: &Path, offset: Option<u64>) -> Result<()> {
    let (is_sound, report) = verify(server, dir)?;
    ensure!(!is_sound, "util verify calls it sound:\n{report}");
    names(&report, offset)?;
    let config = Config {
        server,
        dir,
        flags: &[],
    };
    let mut member = Member::spawn(&config, member::free_ports())?;
    let Some(status) = member.await_end(REFUSAL)? else {
        bail!("the server started:\n{}", member.log_tail());
    };
    ensure!(!status.success(), "the server ended with {status}");
    names(&member.log_tail(), offset)
}

fn names(text: &str, offset: Option<u64>) -> Result<()> {
    ensure!(text.contains(SEGMENT), "{SEGMENT} is not named:\n{text}");
    let wanted = offset.map_or("offset ".into(), |offset| format!("offset {offset}"));
    ensure!(text.contains(&wanted), "{wanted:?} is not named:\n{text}");
    Ok(())
}

/// The server starts without the last key; it and `util verify` say what was dropped.
fn is_dropped(server: &Path, dir: &Path, batch: &Batch, last_index: u64) -> Result<()> {
    let (is_sound, report) = verify(server, dir)?;
    ensure!(is_sound, "util verify calls it not sound:\n{report}");
    names(&report, Some(batch.offset))?;
    ensure!(
        report.contains(&format!("the last entry is {last_index}")),
        "no index:\n{report}"
    );
    let member = Member::start(&Config {
        server,
        dir,
        flags: &[],
    })?;
    let log = fs::read_to_string(dir.join("server.log"))?;
    let says = |line: &&str| line.contains(SEGMENT) && line.contains(&batch.offset.to_string());
    let line = log
        .lines()
        .find(says)
        .with_context(|| format!("nothing of it in the log:\n{log}"))?;
    ensure!(
        line.contains(&last_index.to_string()),
        "{last_index} is not in {line}"
    );
    for key in 0..KEYS {
        let body = member::get(member.client_port, &format!("/v2/keys/key-{key}"))?;
        let is_there = body.contains("\"value\":\"x\"");
        ensure!(is_there == (key + 1 < KEYS), "key {key} of {KEYS}: {body}");
    }
    Ok(())
}

/// The index of the last entry of a sound directory.
fn last_index(server: &Path, dir: &Path) -> Result<u64> {
    let (is_sound, report) = verify(server, dir)?;
    ensure!(is_sound, "not sound before it was damaged:\n{report}");
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("last entry: "));
    Ok(line
        .with_context(|| format!("no last entry:\n{report}"))?
        .parse()?)
}

/// Whether `util verify` finds the directory sound, and what it prints.
fn verify(server: &Path, dir: &Path) -> Result<(bool, String)> {
    let data = member::data_dir(dir);
    let output = Command::new(server)
        .args(["util", "verify"])
        .arg(data)
        .output()?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&printed).into_owned(),
    ))
}
