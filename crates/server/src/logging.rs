//! The log for people and their tools: one line a message, in etcd's shape.
//!
//! Code logs with `tracing`'s macros, with etcd's field names where etcd has one:
//! `info!("data-dir" = %path, "opened")`. Owns how a message becomes a line and where lines go.
//! Never decides what is worth a message.
//!
//! G1. A line is written whole, by one write to each output.
//! G2. A failing output loses its line; it never stops the server.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::config::{Config, LogFormat, LogLevel, LogOutput};
use crate::date::civil;

/// Changes the level while the server runs.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A file of `--log-outputs` cannot be opened. Name another, or make it writable.
    #[error("cannot open the log file {}: {source}", path.display())]
    Open {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process has a log already.
    #[error("the log was set up twice")]
    Twice,
}

/// The level of this process's log, once it has one.
static LEVEL: OnceLock<LevelHandle> = OnceLock::new();

/// Logs from `level` on, from now on. Nothing happens in a process without a log.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        handle.set(level);
    }
}

/// Sets up the log of this process.
///
/// # Errors
/// [`LoggingError::Open`] for a file, [`LoggingError::Twice`] at the second call.
pub fn init(config: &Config) -> Result<(), LoggingError> {
    let outputs = config
        .log_outputs
        .iter()
        .map(open)
        .collect::<Result<_, _>>()?;
    let (subscriber, handle) = subscriber(config, outputs);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)?;
    LEVEL.set(handle).map_err(|_| LoggingError::Twice)
}

impl LevelHandle {
    /// Logs from `level` on, from now on.
    pub fn set(&self, level: LogLevel) {
        // It fails only once the subscriber is gone, and then nothing logs any more.
        let _ = self.0.reload(filter(level));
    }
}

type Output = Box<dyn Write + Send>;

fn open(output: &LogOutput) -> Result<Output, LoggingError> {
    Ok(match output {
        LogOutput::Stderr => Box::new(io::stderr()),
        LogOutput::Stdout => Box::new(io::stdout()),
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.map_err(|source| LoggingError::Open {
                path: path.clone(),
                source,
            })?)
        }
    })
}

fn subscriber(
    config: &Config,
    outputs: Vec<Output>,
) -> (impl Subscriber + Send + Sync + use<>, LevelHandle) {
    let (level, handle) = reload::Layer::new(filter(config.log_level));
    let lines = Lines {
        format: config.log_format,
        outputs: Mutex::new(outputs),
    };
    (
        Registry::default().with(level).with(lines),
        LevelHandle(handle),
    )
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

/// Writes each message as a line.
struct Lines {
    format: LogFormat,
    outputs: Mutex<Vec<Output>>,
}

impl<S: Subscriber> Layer<S> for Lines {
    /// What libraries say below a warning is not for the operator: h2 alone would drown our lines.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("quorate") || *metadata.level() <= Level::WARN
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = line(self.format, SystemTime::now(), event);
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        for output in outputs.iter_mut() {
            let _ = output.write_all(line.as_bytes());
            let _ = output.flush();
        }
    }
}

fn line(format: LogFormat, now: SystemTime, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let level = match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    };
    let (ts, caller, message) = (timestamp(now), caller(metadata), fields.message);
    match format {
        LogFormat::Json => {
            let mut line = format!("{{\"level\":\"{level}\",\"ts\":\"{ts}\",\"caller\":");
            push_json_text(&mut line, &caller);
            line.push_str(",\"msg\":");
            push_json_text(&mut line, &message);
            line.push_str(&fields.json);
            line.push_str("}\n");
            line
        }
        LogFormat::Console => {
            let mut line = format!("{ts}\t{level}\t{caller}\t{}", one_line(&message));
            if let Some(json) = fields.json.strip_prefix(',') {
                write!(line, "\t{{{json}}}").expect("writing to a String does not fail");
            }
            line.push('\n');
            line
        }
    }
}

/// A message's fields: its text, and the others as `,"name":value`, one after another.
#[derive(Default)]
struct Fields {
    message: String,
    json: String,
}

impl Fields {
    fn push(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.json.push(',');
        push_json_text(&mut self.json, field.name());
        write!(self.json, ":{value}").expect("writing to a String does not fail");
    }

    fn push_text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            let mut json = String::new();
            push_json_text(&mut json, text);
            self.push(field, &json);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push(field, &value);
        } else {
            self.push_text(field, &value.to_string());
        }
    }
}

/// Appends `text` as a JSON string.
fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String does not fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

/// Where a message comes from, as `crate/file.rs:line`.
fn caller(metadata: &Metadata<'_>) -> String {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    let file = metadata.file().unwrap_or("unknown");
    let file = file.rsplit_once("/src/").map_or(file, |(_, below)| below);
    format!("{krate}/{file}:{}", metadata.line().unwrap_or(0))
}

/// A time in UTC to the millisecond, as RFC 3339 writes it. A time before 1970 is shown as 1970.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// An output that can be read back.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        /// What was logged, without the times.
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn log_with(config: &Config, log: impl FnOnce(&LevelHandle)) -> [String; 2] {
        let outputs = [Captured::default(), Captured::default()];
        let boxed = outputs
            .iter()
            .map(|output| Box::new(output.clone()) as Output)
            .collect();
        let (subscriber, handle) = subscriber(config, boxed);
        tracing::subscriber::with_default(subscriber, || log(&handle));
        outputs.map(|output| output.take())
    }

    #[test]
    fn a_message_is_a_json_line_in_etcds_shape_on_every_output() {
        let lines = log_with(&Config::default(), |_| {
            tracing::info!(
                "data-dir" = %"a\"b\n", count = 3, ok = true, ratio = 0.5, list = ?["x"], "ready \u{1}"
            );
        });
        assert_eq!(lines[0], lines[1]);
        let (head, tail) = lines[0].split_once(",\"ts\":\"").unwrap();
        assert_eq!(head, "{\"level\":\"info\"");
        let (ts, tail) = tail
            .split_once("\",\"caller\":\"quorate/logging.rs:")
            .unwrap();
        assert_eq!(ts.len(), "2026-11-22T11:00:00.000Z".len());
        let (_, tail) = tail.split_once('"').unwrap();
        assert_eq!(
            tail,
            ",\"msg\":\"ready \\u0001\",\"data-dir\":\"a\\\"b\\n\",\"count\":3,\"ok\":true,\
             \"ratio\":0.5,\"list\":\"[\\\"x\\\"]\"}\n"
        );
    }

    #[test]
    fn console_lines_are_columns() {
        let config = Config {
            log_format: LogFormat::Console,
            ..Config::default()
        };
        let [line, _] = log_with(&config, |_| tracing::warn!(key = 1, "two\nlines"));
        let columns: Vec<_> = line.split('\t').collect();
        assert_eq!(
            (columns[1], columns[3], columns[4]),
            ("warn", "two lines", "{\"key\":1}\n")
        );
        let [line, _] = log_with(&config, |_| tracing::error!("no fields"));
        assert!(line.ends_with("\tno fields\n"), "{line}");
    }

    #[test]
    fn the_level_holds_and_can_be_changed() {
        fn speak(round: u32) {
            tracing::debug!("debug {round}");
            tracing::info!("info {round}");
            tracing::error!("error {round}");
        }
        let config = Config {
            log_format: LogFormat::Console,
            ..Config::default()
        };
        let [lines, _] = log_with(&config, |handle| {
            speak(1);
            handle.set(LogLevel::Debug);
            speak(2);
            handle.set(LogLevel::Error);
            speak(3);
        });
        let messages: Vec<_> = lines
            .lines()
            .map(|line| line.rsplit_once('\t').unwrap().1)
            .collect();
        assert_eq!(
            messages,
            [
                "info 1", "error 1", "debug 2", "info 2", "error 2", "error 3"
            ]
        );
    }

    #[test]
    fn libraries_are_heard_from_a_warning_on() {
        let config = Config {
            log_level: LogLevel::Debug,
            ..Config::default()
        };
        let [lines, _] = log_with(&config, |_| {
            tracing::info!(target: "h2::proto", "chatter");
            tracing::warn!(target: "h2::proto", "trouble");
        });
        assert_eq!(lines.lines().count(), 1);
        assert!(lines.contains("trouble"), "{lines}");
    }

    #[test]
    fn times_are_dates() {
        for (secs, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (1_795_345_200, 7, "2026-11-22T11:00:00.007Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(
                timestamp(UNIX_EPOCH + Duration::from_millis(secs * 1_000 + millis)),
                text
            );
        }
    }

    #[test]
    fn a_file_is_appended_to_and_one_that_cannot_be_opened_is_named() {
        let path = std::env::temp_dir().join(format!("quorate-log-{}", std::process::id()));
        std::fs::write(&path, "before\n").unwrap();
        open(&LogOutput::File(path.clone()))
            .unwrap()
            .write_all(b"after\n")
            .unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
        std::fs::remove_file(&path).unwrap();

        let below = LogOutput::File("/dev/null/log".into());
        let error = open(&below).err().unwrap().to_string();
        assert!(
            error.starts_with("cannot open the log file /dev/null/log: "),
            "{error}"
        );
    }
}
