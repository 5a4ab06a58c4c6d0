//! Where settings come from: the command line, by Go's rules, and the environment.

use std::ffi::OsString;

use super::draft::Draft;
use super::flags::{self, Flag};
use super::{UsageError, Warning};

/// What the command line held besides the values that it put into the draft.
pub(super) enum CommandLine {
    /// `--help` or `-h`, before anything that is wrong.
    Help,
    /// `--version`.
    Version,
    /// The flags that were set, in order.
    Set(Vec<&'static Flag>),
}

/// Reads the command line into `draft`.
///
/// One dash is as good as two; a value follows after `=` or as the next argument, which a boolean
/// never takes; `--` or the first argument that is no flag ends the flags.
///
/// # Errors
/// Go's sentence for what is no flag, etcd's for what is left over.
pub(super) fn read_command_line(
    args: Vec<String>,
    draft: &mut Draft,
) -> Result<CommandLine, UsageError> {
    let mut set = Vec::new();
    let mut version = false;
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next_if(|arg| arg.len() >= 2 && arg.starts_with('-')) {
        if arg == "--" {
            break;
        }
        let body = arg.strip_prefix("--").unwrap_or(&arg[1..]);
        if body.starts_with(['-', '=']) {
            return Err(UsageError::flags(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        match name {
            "help" | "h" => return Ok(CommandLine::Help),
            "version" => {
                version = flags::boolean(value.as_deref().unwrap_or("true")).map_err(|why| {
                    let value = value.unwrap_or_default();
                    UsageError::flags(format!(
                        "invalid boolean value {value:?} for -version: {why}"
                    ))
                })?;
                continue;
            }
            _ => {}
        }
        let flag = flags::find(name)
            .ok_or_else(|| UsageError::flags(format!("flag provided but not defined: -{name}")))?;
        let value = match value {
            Some(value) => value,
            None if flag.is_boolean() => "true".to_owned(),
            None => args
                .next()
                .ok_or_else(|| UsageError::flags(format!("flag needs an argument: -{name}")))?,
        };
        flag.set(draft, &value).map_err(|why| {
            UsageError::flags(if flag.is_boolean() {
                format!("invalid boolean value {value:?} for -{name}: {why}")
            } else {
                format!("invalid value {value:?} for flag -{name}: {why}")
            })
        })?;
        set.push(flag);
    }
    if version {
        return Ok(CommandLine::Version);
    }
    match args.next() {
        Some(left) => Err(UsageError::config(format!("'{left}' is not a valid flag"))),
        None => Ok(CommandLine::Set(set)),
    }
}

/// The variables that begin with `ETCD_` and are not empty, sorted by name.
///
/// # Errors
/// When one is not UTF-8.
pub(super) fn etcd_variables(
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, UsageError> {
    let mut variables = Vec::new();
    for (name, value) in env {
        let Some(name) = name.to_str().filter(|name| name.starts_with("ETCD_")) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| UsageError::config(format!("the value of {name} is not UTF-8")))?;
        if !value.is_empty() {
            variables.push((name.to_owned(), value));
        }
    }
    variables.sort();
    Ok(variables)
}

/// Reads the environment into `draft`; `set` are the flags of the command line.
///
/// # Errors
/// etcd's sentence when a flag is given both ways, and for a value that is none.
pub(super) fn read_variables(
    variables: &[(String, String)],
    set: &[&Flag],
    draft: &mut Draft,
) -> Result<(), UsageError> {
    for (name, value) in variables {
        let Some(flag) = flags::flags().find(|flag| flag.variable() == *name) else {
            let text = format!("unrecognized environment variable {name}={value}");
            draft.warnings.push(Warning(text));
            continue;
        };
        if set.iter().any(|given| given.name == flag.name) {
            return Err(UsageError::config(format!(
                "conflicting environment variable {name:?} is shadowed by corresponding \
                 command-line flag (either unset environment variable or disable flag)"
            )));
        }
        flag.set(draft, value).map_err(|why| {
            UsageError::config(format!("invalid value {value:?} for {name}: {why}"))
        })?;
    }
    Ok(())
}
