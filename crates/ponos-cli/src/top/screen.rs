//! The terminal while `top` has it: raw, on its second screen, given back on every way out.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::{event, terminal};
use tokio::sync::mpsc;

use super::board::Key;
use super::canvas::Canvas;
use crate::error::CliError;
use crate::output::Output;

/// The second screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// How often the thread that waits for keys looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(100);

/// How many keys wait at most.
const KEYS: usize = 64;

/// What came from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Key(Key),
    /// It has another size.
    Resized,
}

/// The terminal. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Screen {
    inputs: mpsc::Receiver<Input>,
    ended: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// When it cannot be switched.
    pub(super) fn open(out: &mut Output) -> Result<Self, CliError> {
        let failed = |error: io::Error| {
            CliError::usage(
                format!("the terminal cannot be taken over: {error}"),
                "`ponos top --once` prints one frame and needs none",
            )
        };
        // A panic says what it has to say on the first screen.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        terminal::enable_raw_mode().map_err(failed)?;
        let (sender, inputs) = mpsc::channel(KEYS);
        let ended = Arc::new(AtomicBool::new(false));
        // From here on dropping it gives the terminal back.
        let screen = Self { inputs, ended: Arc::clone(&ended) };
        out.write(ENTER);
        out.flush();
        thread::Builder::new().name("keys".into()).spawn(move || read(&sender, &ended)).map_err(failed)?;
        Ok(screen)
    }

    /// The next thing that comes from it; `None` when nothing will come any more.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn input(&mut self) -> Option<Input> {
        self.inputs.recv().await
    }

    /// Shows a frame.
    pub(super) fn show(&self, frame: &Canvas, out: &mut Output) {
        let lines = frame.text(|tone, text| out.paint(tone, text));
        // In raw mode a new line does not go back to the left.
        out.write(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n")));
        out.flush();
    }
}

/// Columns and lines.
pub(super) fn size() -> (usize, usize) {
    terminal::size().map_or((80, 24), |(columns, lines)| (columns.into(), lines.into()))
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        give_back();
    }
}

/// Twice does no harm.
fn give_back() {
    let _ = terminal::disable_raw_mode();
    let mut stdout = io::stdout();
    let _ = stdout.write_all(LEAVE.as_bytes());
    let _ = stdout.flush();
}

fn read(sender: &mpsc::Sender<Input>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let input = match event::poll(WAIT) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let input = match input {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => key_of(key).map(Input::Key),
            Ok(Event::Resize(..)) => Some(Input::Resized),
            Ok(_) => None,
            // The terminal is gone.
            Err(_) => return,
        };
        if input.is_some_and(|input| sender.blocking_send(input).is_err()) {
            return;
        }
    }
}

const fn key_of(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Back,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        _ => return None,
    })
}
