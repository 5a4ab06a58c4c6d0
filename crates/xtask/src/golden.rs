//! Golden scripts: shell commands with the output they must have.
//!
//! ```text
//! # The rule that the script shows.
//! $ etcdctl put k v
//! OK
//!
//! $ etcdctl txn <<'.'
//! > mod("k") > "0"
//! > .
//! ```
//!
//! `$` starts a command, `>` continues it, `#` is a remark. Standard output and error are one text;
//! a non-zero exit is its last line, as `[exit 1]`. Empty lines before the next command are layout.
//! Commands of one script share a scratch directory and these shell functions:
//! `later FILE COMMAND...` starts a command in the background, its output going to FILE;
//! `lines FILE COUNT` waits until it has written that many lines, ends it and prints them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::normalise::Normaliser;

const PRELUDE: &str = r#"exec 2>&1
later() {
    local file=$1; shift
    timeout 30 "$@" >"$file" 2>&1 &
    echo $! >"$file.pid"
    sleep 1
}
lines() {
    local try
    for try in $(seq 150); do
        [ "$(wc -l <"$1")" -ge "$2" ] && break
        sleep 0.1
    done
    kill "$(cat "$1.pid")" 2>/dev/null
    cat "$1"
}
"#;

/// A parsed script.
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
}

/// One command with what it must print.
pub(crate) struct Step {
    remarks: Vec<String>,
    pub(crate) command: String,
    pub(crate) expected: String,
}

/// Where a script's commands run.
pub(crate) struct Shell<'a> {
    /// The working directory.
    pub(crate) dir: &'a Path,
    /// Variables beyond ours.
    pub(crate) env: &'a [(&'a str, &'a str)],
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// If output stands before the first command, or there is no command.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut steps: Vec<Step> = Vec::new();
        let mut remarks = Vec::new();
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                let remarks = std::mem::take(&mut remarks);
                steps.push(Step {
                    remarks,
                    command: command.into(),
                    expected: String::new(),
                });
            } else if line.starts_with("# ") {
                remarks.push(line.to_owned());
            } else if let Some(step) = steps.last_mut() {
                step.push(line);
            } else if !line.is_empty() {
                bail!("output before the first command: {line:?}");
            }
        }
        if steps.is_empty() {
            bail!("a script without commands");
        }
        for step in &mut steps {
            step.expected.truncate(step.expected.trim_end().len());
        }
        Ok(Self { steps })
    }

    /// The script as text, so that it can be written after recording.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            for remark in &step.remarks {
                text.push_str(&format!("{remark}\n"));
            }
            text.push_str(&format!("$ {}\n", step.command.replace('\n', "\n> ")));
            if !step.expected.is_empty() {
                text.push_str(&format!("{}\n", step.expected));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

impl Step {
    fn push(&mut self, line: &str) {
        match line.strip_prefix("> ").or((line == ">").then_some("")) {
            Some(more) if self.expected.is_empty() => {
                self.command.push('\n');
                self.command.push_str(more);
            }
            _ => {
                self.expected.push_str(line);
                self.expected.push('\n');
            }
        }
    }
}

impl Shell<'_> {
    /// Runs one command and returns what it printed, normalised.
    pub(crate) fn run(&self, command: &str, normaliser: &mut Normaliser) -> Result<String> {
        let script = format!("{PRELUDE}{}\n", normaliser.command(command));
        let output = Command::new("timeout")
            .args(["60", "bash", "-c", &script])
            .current_dir(self.dir)
            .envs(self.env.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start bash")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            let code = output
                .status
                .code()
                .map_or("signal".into(), |code| code.to_string());
            text.push_str(&format!("[exit {code}]"));
        }
        Ok(normaliser.text(&text))
    }
}

/// Prints how an output differs from what was expected.
pub(crate) fn print_difference(place: &str, step: &Step, actual: &str) {
    println!("DIFFERENCE in {place}\n$ {}", step.command);
    println!("--- expected\n{}\n--- got\n{actual}\n---", step.expected);
}

#[cfg(test)]
mod tests {
    use super::Script;

    #[test]
    fn a_script_is_rendered_as_it_was_read() {
        let text = "# A rule.\n\n$ cat <<.\n> a\n>\n> .\na\n\n$ true\n\n# Next.\n$ echo x\nx\n";
        let script = Script::parse(text).unwrap();
        assert_eq!(script.steps.len(), 3);
        assert_eq!(script.steps[0].command, "cat <<.\na\n\n.");
        assert_eq!(script.steps[0].expected, "a");
        assert_eq!(
            Script::parse(&script.render()).unwrap().render(),
            script.render()
        );
    }

    #[test]
    fn output_without_a_command_is_refused() {
        assert!(Script::parse("x\n$ true\n").is_err());
        assert!(Script::parse("# only a remark\n").is_err());
    }
}
