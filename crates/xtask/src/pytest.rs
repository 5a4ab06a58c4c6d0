//! Runs the integration tests that Python's gRPC clients ship in their source packages: aetcd 1.0.0
//! and etcd3 0.12.0, against three members of which one has etcd's own port, with etcdctl beside them.
//!
//! A test that cannot hold here is left out by name, with its reason; all others must pass.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::member::{Config, Member};
use crate::outcome::Outcome;
use crate::{tools, workspace};

/// Some tests have this in them.
const CLIENT_PORT: u16 = 2379;
const NAMES: [&str; 3] = ["pifpaf", "pifpaf1", "pifpaf2"];

/// A client, what its tests import, and which of them are left out.
struct Client {
    /// The suite's name and the package's.
    name: &'static str,
    version: &'static str,
    packages: &'static [&'static str],
    /// Arguments of pytest.
    args: &'static [&'static str],
    /// The variable that holds the server's URL.
    url: &'static str,
    env: &'static [(&'static str, &'static str)],
    left_out: &'static [(&'static str, &'static str)],
}

const AETCD: Client = Client {
    name: "aetcd",
    version: "1.0.0",
    packages: &[
        "grpcio==1.85.3",
        "iniconfig==2.3.1",
        "packaging==26.3",
        "pluggy==1.7.0",
        "protobuf==7.36.2",
        "Pygments==2.21.0",
        "pytest==9.0.3",
        "pytest-asyncio==1.3.0",
        "pytest-mock==3.15.1",
        "setuptools==82.0.1",
        "setuptools-scm==10.0.5",
        "vcs-versioning==2.4.0",
        "typing_extensions==4.16.0",
        "wheel==0.47.0",
    ],
    // Theirs ask for a measurement of coverage.
    args: &["-o", "addopts=", "tests/integration"],
    url: "TEST_ETCD_HTTP_URL",
    env: &[],
    left_out: &[(
        "tests/integration/test_auth.py::test_auth",
        "users are not built yet",
    )],
};

const ETCD3: Client = Client {
    name: "etcd3",
    version: "0.12.0",
    packages: &[
        "grpcio==1.85.3",
        "hypothesis==6.170.17",
        "iniconfig==2.3.1",
        "mock==5.2.0",
        "packaging==26.3",
        "pluggy==1.7.0",
        "protobuf==3.20.3",
        "Pygments==2.21.0",
        "pytest==9.2.0",
        "setuptools==75.8.0",
        "six==1.17.0",
        "sortedcontainers==2.4.0",
        "tenacity==6.1.0",
        "typing_extensions==4.16.0",
        "wheel==0.47.0",
    ],
    args: &["-p", "of_their_time", "tests"],
    url: "PYTHON_ETCD_HTTP_URL",
    env: &[
        ("TEST_ETCD_VERSION", "v3.7.1"),
        // Their generated code is of protobuf 3.
        ("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python"),
    ],
    left_out: &[(
        "tests/test_etcd3.py::TestClient::test_user_pwd_auth",
        "talks to no server, and patches a module by a name that Python 3 does not find",
    )],
};

pub(crate) fn aetcd(server: &Path) -> Result<Outcome> {
    AETCD.suite(server)
}

pub(crate) fn etcd3(server: &Path) -> Result<Outcome> {
    ETCD3.suite(server)
}

impl Client {
    fn suite(&self, server: &Path) -> Result<Outcome> {
        if tools::find("python3").is_none() {
            return Ok(Outcome::Skipped("python3 is missing".into()));
        }
        if !tools::has_own_ports() {
            if let Err(missing) = tools::ensure_debian("etcdctl", &["etcd-client"]) {
                return Ok(Outcome::Skipped(missing));
            }
            // The network is still here: the packages come from PyPI.
            let python = tools::venv(self.name, self.packages)?;
            tools::source_package(&python, self.name, self.version)?;
            return tools::with_own_ports(self.name, server);
        }
        let python = tools::venv(self.name, self.packages)?;
        let source = tools::source_package(&python, self.name, self.version)?;
        let dir = workspace::empty_dir(self.name)?;
        // By these names the tests find two of them, to stop and wake them.
        let ports = (CLIENT_PORT..).step_by(2).map(|port| (port, port + 1));
        let names: Vec<_> = NAMES.into_iter().zip(ports).collect();
        let config = Config {
            server,
            dir: &dir,
            flags: &[],
        };
        let _members = Member::start_named(&config, &names)?;
        for (test, why) in self.left_out {
            println!("left out: {test}: {why}");
        }
        self.run(&python, &source)
    }

    fn run(&self, python: &Path, source: &Path) -> Result<Outcome> {
        let plugins = workspace::root().join("testdata/clients").join(self.name);
        let paths = std::env::join_paths([source, &plugins])?;
        let skipped = self
            .left_out
            .iter()
            .map(|(test, _)| format!("--deselect={test}"));
        let output = Command::new(python)
            .args([
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-W",
                "ignore",
            ])
            .args(skipped)
            .args(self.args)
            .current_dir(source)
            .env("PYTHONPATH", paths)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env(self.url, format!("http://127.0.0.1:{CLIENT_PORT}"))
            .envs(self.env.iter().copied())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let last = text.lines().last().unwrap_or_default();
        if !output.status.success() || !last.contains(" passed") {
            bail!("{last}");
        }
        Ok(Outcome::Passed(last.to_owned()))
    }
}
