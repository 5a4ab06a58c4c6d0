//! The help text and the usage lines, made from the table of flags.

use std::fmt::Write as _;

use super::flags::flags;

/// The usage lines, which also follow an error about a flag.
pub(super) const USAGE: &str = "\
Usage:

  quorate [flags]
    Start a server.

  quorate --version
    Show the versions.

  quorate -h | --help
    Show this help.

  quorate --config-file FILE
    Take all settings from a YAML or JSON file; other flags and ETCD_* variables are then ignored.

  quorate util verify DATA-DIR
    Check every record of a data directory.
";

/// What `--help` prints.
pub(super) fn text() -> String {
    let mut help =
        format!("{USAGE}\nFlags, also as ETCD_* variables (--data-dir is ETCD_DATA_DIR):\n\n");
    for flag in flags().filter(|flag| flag.is_in_force()) {
        writeln!(
            help,
            "  --{} '{}'\n    {}",
            flag.name, flag.default, flag.doc
        )
        .expect("writing to a String does not fail");
    }
    help.push_str("\nAccepted from etcd 3.4 to 3.7, without effect here:\n\n");
    for flag in flags().filter(|flag| !flag.is_in_force()) {
        writeln!(
            help,
            "  --{} (etcd: {}): {}",
            flag.name, flag.versions, flag.doc
        )
        .expect("writing to a String does not fail");
    }
    help
}
