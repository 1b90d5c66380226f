//! The only way to the standard output and the error output.
//!
//! A pipe that nobody reads any more is no error: what is written after that is dropped, and the verb's own exit
//! code stands.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use crate::error::CliError;

/// The columns where nothing says how many there are.
const DEFAULT_WIDTH: usize = 100;

/// What a text is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Strong,
    Faint,
    Good,
    Bad,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// The standard output.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    state: State,
    color: bool,
    terminal: bool,
}

#[derive(Debug)]
enum State {
    Open,
    /// Nobody reads any more.
    Closed,
    /// It takes nothing for another reason, such as a full disk.
    Broken(io::Error),
}

impl Output {
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self {
            stdout: BufWriter::new(stdout),
            state: State::Open,
            color: (terminal && color_is_welcome()) || color_is_forced(),
            terminal,
        }
    }

    /// Whether colours may be used.
    pub(crate) const fn color(&self) -> bool {
        self.color
    }

    /// Whether somebody watches, so that a line may be written over.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The columns of the terminal; a fixed number where there is none, so that piped text does not depend on it.
    pub(crate) fn width(&self) -> usize {
        if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()) {
            return columns;
        }
        match terminal_size::terminal_size() {
            Some((terminal_size::Width(columns), _)) if self.terminal && columns > 0 => usize::from(columns),
            _ => DEFAULT_WIDTH,
        }
    }

    /// Whether writing is in vain.
    pub(crate) const fn is_closed(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// Writes a text that is safe for a terminal already.
    pub(crate) fn write(&mut self, text: &str) {
        let written = self.stdout.write_all(text.as_bytes());
        self.note(written);
    }

    /// Writes a line that is safe for a terminal already. On a terminal it is seen at once.
    pub(crate) fn line(&mut self, text: &str) {
        self.write(text);
        self.write("\n");
        if self.terminal {
            self.flush();
        }
    }

    /// Writes a line for people who watch, where there is a terminal: what is piped does not hold it.
    pub(crate) fn hint(&mut self, text: &str) {
        if self.terminal {
            self.line(text);
        }
    }

    /// Shows a picture; on a terminal, `again` puts it where the last one was.
    pub(crate) fn redraw(&mut self, picture: &str, again: bool) {
        match (self.terminal, again) {
            // Home, and clear what is below.
            (true, _) => self.write("\x1b[H\x1b[J"),
            (false, true) => self.write("\n"),
            (false, false) => {}
        }
        self.write(picture);
        self.flush();
    }

    /// Gives a text a tone, where colours may be used.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }

    pub(crate) fn flush(&mut self) {
        let flushed = if self.is_closed() { Ok(()) } else { self.stdout.flush() };
        self.note(flushed);
    }

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// When the output took less than it was given, unless its reader went away.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.flush();
        match self.state {
            State::Broken(error) => Err(CliError::refused(
                format!("the output could not be written: {error}"),
                "free some space, or write it elsewhere",
            )),
            State::Open | State::Closed => Ok(()),
        }
    }

    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.state = State::Closed,
            Err(error) if !self.is_closed() => self.state = State::Broken(error),
            Err(_) => {}
        }
    }
}

/// Writes an error and what to do about it to the error output, whose reader may be gone too.
pub(crate) fn complain(problem: &str, help: &str) {
    let stderr = io::stderr();
    let color = stderr.is_terminal() && color_is_welcome();
    let text = format!(
        "{} {problem}\n{} {help}\n",
        paint(color, Tone::Bad, "error:"),
        paint(color, Tone::Strong, "help:")
    );
    let _ = stderr.lock().write_all(text.as_bytes());
}

fn paint(color: bool, tone: Tone, text: &str) -> String {
    if color { format!("{}{text}\x1b[0m", tone.code()) } else { text.to_owned() }
}

/// `CLICOLOR_FORCE` (bixense.com/clicolors): colours into a pipe too, unless `NO_COLOR` forbids them.
fn color_is_forced() -> bool {
    let forced = std::env::var_os("CLICOLOR_FORCE").filter(|value| !value.is_empty() && value != "0");
    forced.is_some() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `NO_COLOR` (no-color.org): present and not empty, whatever its value.
fn color_is_welcome() -> bool {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    named("NO_COLOR").is_none() && named("TERM").as_deref() != Some(OsStr::new("dumb"))
}
