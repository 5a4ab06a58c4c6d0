//! The configuration file: YAML, and so JSON too, in etcd's shape.
//!
//! Keys are names of flags. Some stand in groups (`client-transport-security:` and so on); what is a
//! list on the command line may be one here; a plain number for a duration is nanoseconds, as in
//! etcd. Scalars are taken as they are written: whether `y` is a name or a boolean is the flag's to
//! say, not YAML's.

use saphyr::{ScalarStyle, Yaml, YamlLoader};
use saphyr_parser::Parser;

use super::draft::Draft;
use super::flags::{self, Flag, Kind};

/// The groups of etcd's file, and what their keys' flags begin with.
const GROUPS: [(&str, &str); 4] = [
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
    ("socket-options", "socket-"),
    ("discovery-config", "discovery-"),
];

/// Reads a file's text into `draft`.
///
/// # Errors
/// A sentence that names the key, for what is no YAML, no flag, or no value for it.
pub(super) fn read(text: &str, draft: &mut Draft) -> Result<(), String> {
    let Some(document) = load(text)? else {
        return Ok(());
    };
    if is_null(&document) {
        return Ok(());
    }
    for (key, value) in entries(&document, "the file")? {
        match GROUPS.iter().find(|(group, _)| *group == key) {
            Some(_) if is_null(value) => {}
            Some((group, prefix)) => {
                for (inner, value) in entries(value, group)? {
                    let path = format!("{group}.{inner}");
                    set(grouped(prefix, inner), &path, value, draft)?;
                }
            }
            None => set(flags::find(key), key, value, draft)?,
        }
    }
    Ok(())
}

/// The one document of the text, scalars left as they are written. `None` when there is none.
fn load(text: &str) -> Result<Option<Yaml<'_>>, String> {
    let mut loader = YamlLoader::<Yaml<'_>>::default();
    loader.early_parse(false);
    Parser::new_from_str(text)
        .load(&mut loader, true)
        .map_err(|error| error.to_string())?;
    if let Some(error) = loader.error() {
        return Err(error.to_string());
    }
    let mut documents = loader.into_documents();
    if documents.len() > 1 {
        return Err("it holds several YAML documents, where one is needed".to_owned());
    }
    Ok(documents.pop())
}

/// The flag that a group's key means.
fn grouped(prefix: &str, key: &str) -> Option<&'static Flag> {
    let name = match (prefix, key) {
        ("", "allowed-cn" | "allowed-hostname") => format!("client-cert-{key}"),
        ("", "skip-client-san-verification") => format!("client-{key}"),
        ("peer-", "allowed-cn" | "allowed-hostname") => format!("peer-cert-{key}"),
        _ => format!("{prefix}{key}"),
    };
    flags::find(&name)
}

/// The keys and values of a mapping.
fn entries<'a>(node: &'a Yaml<'_>, whose: &str) -> Result<Vec<(&'a str, &'a Yaml<'a>)>, String> {
    let Yaml::Mapping(mapping) = untagged(node) else {
        return Err(format!("{whose} must hold keys with values"));
    };
    mapping
        .iter()
        .map(|(key, value)| match key {
            Yaml::Representation(text, ..) => Ok((text.as_ref(), value)),
            _ => Err(format!("{whose} has a key that is no text")),
        })
        .collect()
}

fn set(flag: Option<&Flag>, key: &str, value: &Yaml<'_>, draft: &mut Draft) -> Result<(), String> {
    let flag = flag
        .filter(|flag| flag.name != "config-file")
        .ok_or_else(|| format!("{key:?} is no setting that etcd or Quorate knows"))?;
    if is_null(value) {
        return Ok(());
    }
    let written = match untagged(value) {
        Yaml::Sequence(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(|item| scalar(item, key)).collect();
            items?.join(",")
        }
        scalar_node => scalar(scalar_node, key)?.to_owned(),
    };
    let text = as_on_the_command_line(flag.kind, &written);
    flag.set(draft, &text)
        .map_err(|why| format!("invalid value {written:?} for {key}: {why}"))
}

/// What a file's scalar would be as a flag's value.
fn as_on_the_command_line(kind: Kind, written: &str) -> String {
    match (kind, written) {
        (Kind::Duration, _) if written.parse::<i64>().is_ok() => format!("{written}ns"),
        (Kind::Bool, "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => "true".to_owned(),
        (Kind::Bool, "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => "false".to_owned(),
        _ => written.to_owned(),
    }
}

fn scalar<'a>(node: &'a Yaml<'_>, key: &str) -> Result<&'a str, String> {
    match node {
        Yaml::Representation(text, ..) => Ok(text),
        _ => Err(format!(
            "{key} must be a text, a number, a boolean or a list of these"
        )),
    }
}

fn untagged<'a, 'input>(node: &'a Yaml<'input>) -> &'a Yaml<'input> {
    match node {
        Yaml::Tagged(_, inner) => inner,
        other => other,
    }
}

fn is_null(node: &Yaml<'_>) -> bool {
    match node {
        Yaml::Representation(text, ScalarStyle::Plain, None) => {
            matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL")
        }
        _ => false,
    }
}
