//! One member and a client of both dialects.

use std::collections::BTreeMap;
use std::ffi::OsString;

use quorate::config::{self, Invocation};
use quorate::node::{Node, Running};

use super::v2::Lines;

pub(super) struct Session {
    pub(super) node: Node,
    pub(super) watches: BTreeMap<String, Lines>,
    running: Running,
    directory: tempfile::TempDir,
}

impl Session {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let args = [
            OsString::from("--data-dir"),
            directory.path().join("member").into(),
        ];
        let invocation = config::parse(args, [], |_| unreachable!("no file of settings"));
        let Ok(Invocation::Serve(config, _)) = invocation else {
            panic!("{invocation:?}")
        };
        let running = Running::start(*config).await.expect("a member");
        running.publish().await.expect("it makes itself known");
        Self {
            node: running.node.clone(),
            watches: BTreeMap::new(),
            running,
            directory,
        }
    }

    /// Performs a request; what it prints ends with a newline.
    pub(super) async fn answer(&mut self, request: &str) -> String {
        let (dialect, rest) = request.split_once(' ').expect("a dialect and a request");
        let answer = match dialect {
            "v2" => super::v2::answer(self, rest).await,
            "v3" => super::v3::answer(&self.node, rest).await,
            other => panic!("no dialect {other}"),
        };
        format!("{answer}\n")
    }

    pub(super) async fn stop(self) {
        drop(self.watches);
        self.running.stop().await;
        self.directory.close().expect("its directory");
    }
}

/// A word with `\xNN` undone.
pub(super) fn bytes(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
