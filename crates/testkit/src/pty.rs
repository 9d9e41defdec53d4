//! A terminal for tests: `dnd` runs in it, and its screen can be asked.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, ttyname};
use xtask::run;

use crate::{DEADLINE, must};

/// Keys that are no characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Tabulator.
    Tab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Interrupt: SIGINT, or the character in raw mode.
    CtrlC,
    /// End of input.
    CtrlD,
}

impl Key {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Enter => b"\r",
            Self::Escape => b"\x1b",
            Self::Tab => b"\t",
            Self::Up => b"\x1b[A",
            Self::Down => b"\x1b[B",
            Self::CtrlC => b"\x03",
            Self::CtrlD => b"\x04",
        }
    }
}

struct State {
    parser: vt100::Parser,
    /// Everything that came, for messages of failed tests.
    raw: Vec<u8>,
    ended: bool,
}

/// A program in a terminal; killed when dropped.
pub struct Screen {
    child: Child,
    command: String,
    keyboard: File,
    tty: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Screen {
    #[track_caller]
    pub(crate) fn open(command: &Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = must(openpty(&size, None), "can't open a pseudo terminal");
        let tty = must(ttyname(&pty.slave), "the pseudo terminal has no name").to_string_lossy().into_owned();
        let keyboard = File::from(pty.master);

        // setsid makes the terminal the controlling one, so that Ctrl-C is a signal. Each executes the next in its own
        // place: the child is the program. Tests that run in the background of a shell have SIGINT ignored.
        let mut session = Command::new("env");
        session
            .args(["--default-signal=INT", "setsid", "--ctty"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        let slave = File::from(pty.slave);
        let clone = || Stdio::from(must(slave.try_clone(), "can't clone the terminal"));
        session.stdin(clone()).stdout(clone()).stderr(clone());
        let command = run::shown(command);
        let child = must(session.spawn(), format_args!("can't run `setsid --ctty {command}`"));
        drop((session, slave));

        let state = State { parser: vt100::Parser::new(rows, columns, 1000), raw: Vec::new(), ended: false };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let (writer, output) = (Arc::clone(&shared), must(keyboard.try_clone(), "can't clone the terminal"));
        std::thread::spawn(move || show(output, &writer));
        Self { child, command, keyboard, tty, shared }
    }

    /// Types text.
    #[track_caller]
    pub fn keys(&mut self, text: &str) {
        must(self.keyboard.write_all(text.as_bytes()), "can't type");
    }

    /// Presses a key.
    #[track_caller]
    pub fn press(&mut self, key: Key) {
        must(self.keyboard.write_all(key.bytes()), "can't type");
    }

    /// Sends the program a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        must(kill(pid, signal), format_args!("can't signal `{}`", self.command));
    }

    /// Gives the terminal another size; the program gets SIGWINCH.
    #[track_caller]
    pub fn resize(&mut self, rows: u16, columns: u16) {
        state(&self.shared).parser.screen_mut().set_size(rows, columns);
        let mut stty = Command::new("stty");
        stty.args(["-F", &self.tty, "rows", &rows.to_string(), "cols", &columns.to_string()]);
        must(run::quietly(&mut stty), "can't resize the terminal");
    }

    /// What is on the screen now: its lines, without trailing blanks.
    pub fn text(&self) -> String {
        lines(state(&self.shared).parser.screen())
    }

    /// Everything that the program has written so far, escape sequences included.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&state(&self.shared).raw).into_owned()
    }

    /// Waits until the screen satisfies `want`, and returns it.
    #[track_caller]
    pub fn wait_until(&self, want: impl Fn(&str) -> bool) -> String {
        match self.wait(|state| Some(lines(state.parser.screen())).filter(|text| want(text))) {
            Ok(text) => text,
            Err(text) => panic!("`{}` never showed what was expected; the screen:\n{text}", self.command),
        }
    }

    /// Waits until `needle` is on the screen, and returns the screen.
    #[track_caller]
    pub fn wait_for(&self, needle: &str) -> String {
        match self.wait(|state| Some(lines(state.parser.screen())).filter(|text| text.contains(needle))) {
            Ok(text) => text,
            Err(text) => panic!("`{}` never showed {needle:?}; the screen:\n{text}", self.command),
        }
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        if let Err(text) = self.wait(|state| state.ended.then_some(())) {
            panic!("`{}` does not end; the screen:\n{text}", self.command);
        }
        must(self.child.wait(), "can't wait for the program")
    }

    /// Whether the cursor is hidden, and whether the alternate screen is on: both false once a program has tidied up.
    pub fn modes(&self) -> (bool, bool) {
        let state = state(&self.shared);
        (state.parser.screen().hide_cursor(), state.parser.screen().alternate_screen())
    }

    /// Whether the terminal edits lines and echoes, as a shell expects it.
    #[track_caller]
    pub fn cooked(&self) -> bool {
        let flags = must(tcgetattr(&self.keyboard), "the terminal's settings").local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    fn wait<T>(&self, find: impl Fn(&State) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = state(&self.shared);
        loop {
            if let Some(found) = find(&state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return Err(lines(state.parser.screen()));
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("command", &self.command).field("text", &self.text()).finish()
    }
}

fn state(shared: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lines(screen: &vt100::Screen) -> String {
    let (_, columns) = screen.size();
    screen
        .rows(0, columns)
        .map(|row| format!("{}\n", row.trim_end()))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Feeds the screen until the program's end, and answers what a terminal answers.
fn show(mut terminal: File, shared: &(Mutex<State>, Condvar)) {
    const WHERE_IS_THE_CURSOR: &[u8] = b"\x1b[6n";
    let mut buffer = [0; 16 * 1024];
    loop {
        // Reading fails with EIO once no process has the terminal open.
        let got = terminal.read(&mut buffer).unwrap_or(0);
        let bytes = buffer.get(..got).unwrap_or_default();
        let mut state = state(shared);
        state.parser.process(bytes);
        state.raw.extend_from_slice(bytes);
        state.ended = got == 0;
        let asked = bytes.windows(WHERE_IS_THE_CURSOR.len()).any(|window| window == WHERE_IS_THE_CURSOR);
        let (row, column) = state.parser.screen().cursor_position();
        let ended = state.ended;
        drop(state);
        shared.1.notify_all();
        if ended {
            break;
        }
        if asked {
            let _ = terminal.write_all(format!("\x1b[{};{}R", row + 1, column + 1).as_bytes());
        }
    }
}
