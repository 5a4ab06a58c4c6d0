//! Directories that a server must not start in: each is refused with a sentence and exit code 1,
//! and nothing in it is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::connections;
use crate::member::{self, Config, Member};
use crate::workspace;

/// Runs all cases; `used` holds the data directory of a server that has ended. Returns how many.
pub(super) fn all(server: &Path, used: &Path) -> Result<usize> {
    let note = connections::too_many(server)?;
    println!("more connections than files: {note}");
    let dir = workspace::empty_dir("bad-input-dirs")?;
    let data = member::data_dir(used);
    let cases = Cases { server, dir: &dir };
    let mut count = 1;
    for (name, refused) in [
        ("a directory that another server has", cases.in_use()?),
        ("a file in place of the directory", cases.file()?),
        ("a directory of etcd", cases.etcd()?),
        ("a directory of a newer version", cases.newer(&data)?),
        (
            "a directory without its identity",
            cases.without_identity(&data)?,
        ),
        ("a name that is too long", cases.long_name()?),
        ("a directory that cannot be made", cases.cannot_be_made()?),
        ("an empty directory, read-only", cases.read_only(None)?),
        ("a used directory, read-only", cases.read_only(Some(&data))?),
        ("a disk that is full", cases.full()?),
    ] {
        match refused {
            Some(sentence) => println!("{name}: {sentence}"),
            None => println!("{name}: skipped, a mount namespace cannot be had here"),
        }
        count += 1;
    }
    Ok(count)
}

struct Cases<'a> {
    server: &'a Path,
    dir: &'a Path,
}

/// What was said, or that it could not be tried here.
type Refused = Result<Option<String>>;

impl Cases<'_> {
    fn flags(data: &Path) -> Vec<String> {
        let (client, peer) = member::free_ports();
        let (client, peer) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        [
            "--name=default".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ]
        .to_vec()
    }

    /// Starts the server in `data`, which must be refused in words that hold `wanted`.
    fn refused(&self, data: &Path, wanted: &str) -> Refused {
        let mut command = Command::new(self.server);
        command.args(Self::flags(data));
        sentence(command, wanted).map(Some)
    }

    /// As [`Self::refused`] in a mount namespace, after a script that mounts.
    fn refused_in_namespace(&self, script: &str, data: &Path, wanted: &str) -> Refused {
        let in_namespace = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script]);
            command
        };
        let can = in_namespace(script).stderr(Stdio::null()).status();
        if !can.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let mut command = in_namespace(&format!("{script} && exec \"$0\" \"$@\""));
        command.arg(self.server).args(Self::flags(data));
        sentence(command, wanted).map(Some)
    }

    fn copy(&self, name: &str, data: &Path) -> Result<PathBuf> {
        let copy = self.dir.join(name);
        fs::create_dir(&copy)?;
        for entry in fs::read_dir(data)? {
            let entry = entry?;
            fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
        Ok(copy)
    }

    fn in_use(&self) -> Refused {
        let config = Config {
            server: self.server,
            dir: self.dir,
            flags: &[],
        };
        let _holder = Member::start(&config)?;
        self.refused(&member::data_dir(self.dir), "is in use by another process")
    }

    fn file(&self) -> Refused {
        let path = self.dir.join("file");
        fs::write(&path, "not a directory")?;
        let refused = self.refused(&path, "File exists")?;
        ensure!(fs::read(&path)? == b"not a directory");
        Ok(refused)
    }

    fn etcd(&self) -> Refused {
        let path = self.dir.join("etcd");
        fs::create_dir_all(path.join("member/wal"))?;
        let refused = self.refused(&path, "is etcd's own")?;
        ensure!(
            fs::read_dir(&path)?.count() == 1,
            "something was written to it"
        );
        Ok(refused)
    }

    /// Format version 2 of the identity, by a program that knows how to write its checksum.
    fn newer(&self, data: &Path) -> Refused {
        let copy = self.copy("newer", data)?;
        let path = copy.join("identity");
        let mut bytes = fs::read(&path)?;
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let end = bytes.len() - 4;
        let crc = crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
        fs::write(&path, &bytes)?;
        let refused = self.refused(&copy, "identity has format version 2")?;
        ensure!(fs::read(&path)? == bytes, "the identity was changed");
        Ok(refused)
    }

    fn without_identity(&self, data: &Path) -> Refused {
        let copy = self.copy("nameless", data)?;
        fs::remove_file(copy.join("identity"))?;
        self.refused(&copy, "the file is missing beside a")
    }

    fn long_name(&self) -> Refused {
        self.refused(&self.dir.join("n".repeat(300)), "name too long")
    }

    fn cannot_be_made(&self) -> Refused {
        self.refused(
            Path::new("/proc/quorate/data"),
            "cannot make the data directory",
        )
    }

    fn read_only(&self, used: Option<&Path>) -> Refused {
        let path = match used {
            Some(data) => self.copy("read-only-used", data)?,
            None => self.dir.join("read-only"),
        };
        fs::create_dir_all(&path)?;
        let shown = path.display();
        let script =
            format!("mount --bind '{shown}' '{shown}' && mount -o remount,bind,ro '{shown}'");
        self.refused_in_namespace(&script, &path, "Read-only file system")
    }

    fn full(&self) -> Refused {
        let path = self.dir.join("full");
        fs::create_dir_all(&path)?;
        let script = format!("mount -t tmpfs -o size=1m none '{}'", path.display());
        self.refused_in_namespace(&script, &path, "No space left on device")
    }
}

/// The last line that a server says that ends by itself with code 1.
fn sentence(mut command: Command, wanted: &str) -> Result<String> {
    // A server that does start is ended.
    let mut limited = Command::new("timeout");
    limited
        .args(["--signal=KILL", "20"])
        .arg(command.get_program())
        .args(command.get_args());
    command = limited;
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&stderr);
    let last = text
        .lines()
        .last()
        .with_context(|| format!("nothing was said; {status}"))?;
    ensure!(
        status.code() == Some(1) && last.contains(wanted) && last.starts_with("quorate: "),
        "{status}: {text}"
    );
    Ok(last.to_owned())
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}
