//! What the demo says: lines from anywhere, written by one thread, so that neither a slow reader nor a closed pipe
//! disturbs the services.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

/// How many lines may wait for a slow reader. Beyond that the story has gaps; the balance has none.
const WAITING_LINES: usize = 4096;

/// The columns of the name in front of each line.
const NAME_COLUMNS: usize = 13;

/// The columns where there is no terminal.
const DEFAULT_WIDTH: usize = 100;

/// What a line is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Open,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Open => "\x1b[33m",
        }
    }
}

/// A handle to the writing thread. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    lines: mpsc::Sender<Piece>,
    /// Whether nobody reads any more; and, by its end, that everything was written.
    closed: watch::Receiver<bool>,
    started: Instant,
    color: bool,
    width: usize,
}

#[derive(Debug)]
enum Piece {
    Story(String),
    /// The balance, for the standard output.
    Json(String),
    End,
}

impl Console {
    /// The story goes to the standard output, or to the error output where that is kept for the balance.
    pub(crate) fn open(json: bool) -> Self {
        let terminal = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = named("TERM").is_some_and(|term| term == "dumb");
        let (lines, inbox) = mpsc::channel(WAITING_LINES);
        let (tell, closed) = watch::channel(false);
        // A thread of its own: writing to a pipe that nobody reads blocks.
        let written =
            thread::Builder::new().name("console".into()).spawn(move || write_all(inbox, &tell, json));
        // Without the thread the channel is closed and the demo is silent; its exit code still tells.
        drop(written);
        let columns =
            || terminal_size::terminal_size().map(|(terminal_size::Width(columns), _)| usize::from(columns));
        let width = named("COLUMNS").and_then(|value| value.to_str()?.parse().ok());
        let width = width.or_else(|| columns().filter(|_| terminal)).unwrap_or(DEFAULT_WIDTH);
        Self {
            lines,
            closed,
            started: Instant::now(),
            color: terminal && !dumb && named("NO_COLOR").is_none(),
            width,
        }
    }

    /// Whether colours may be used.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// The columns of the terminal, as far as is known.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Says what `who` does or what happened to it, now. Never waits.
    pub(crate) fn say(&self, who: &str, tone: Tone, text: &str) {
        let time = format!("{:>5.1}s", self.started.elapsed().as_secs_f64());
        let who = format!("{who:<NAME_COLUMNS$}");
        let line = format!(
            "{}  {}  {}\n",
            self.paint(Tone::Faint, &time),
            self.paint(Tone::Strong, &who),
            self.paint(tone, text)
        );
        self.write(line);
    }

    /// Begins a scene.
    pub(crate) fn scene(&self, number: usize, title: &str) {
        self.write(format!("\n{}\n", self.paint(Tone::Strong, &format!("── {number} · {title}"))));
    }

    /// A line without time and name.
    pub(crate) fn line(&self, tone: Tone, text: &str) {
        self.write(format!("{}\n", self.paint(tone, text)));
    }

    /// A text that has its colours and line ends already.
    pub(crate) fn write(&self, text: String) {
        let _ = self.lines.try_send(Piece::Story(text));
    }

    /// Says why the demo did not begin.
    pub(crate) fn error(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{} {text}", self.paint(Tone::Bad, "error:"));
    }

    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if self.color && tone != Tone::Plain {
            format!("{}{text}\x1b[0m", tone.code())
        } else {
            text.to_owned()
        }
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn closed(&self) {
        let mut closed = self.closed.clone();
        if closed.wait_for(|closed| *closed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Writes the balance to the standard output, if that is asked for, and waits until everything is written, up to
    /// `limit`.
    pub(crate) async fn finish(&self, balance: Option<String>, limit: Duration) {
        let mut closed = self.closed.clone();
        let finish = async {
            if let Some(balance) = balance {
                let _ = self.lines.send(Piece::Json(format!("{balance}\n"))).await;
            }
            let _ = self.lines.send(Piece::End).await;
            while closed.changed().await.is_ok() {}
        };
        let _ = tokio::time::timeout(limit, finish).await;
    }
}

fn write_all(mut inbox: mpsc::Receiver<Piece>, tell: &watch::Sender<bool>, json: bool) {
    let mut story: Box<dyn Write> = if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    let mut open = true;
    while let Some(piece) = inbox.blocking_recv() {
        match piece {
            Piece::Story(text) if open => {
                // Whatever the reason, this output takes nothing any more.
                if story.write_all(text.as_bytes()).and_then(|()| story.flush()).is_err() {
                    open = false;
                    tell.send_replace(true);
                }
            }
            Piece::Story(_) => {}
            Piece::Json(text) => {
                let mut out = io::stdout();
                if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                    tell.send_replace(true);
                }
            }
            Piece::End => return,
        }
    }
}
