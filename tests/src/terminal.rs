//! A person at a terminal: a program on a pseudo-terminal, what it shows, and keys.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::openpty;

use crate::wait_until;

/// A program at a terminal. Dropping it ends the program.
#[derive(Debug)]
pub struct Terminal {
    program: Child,
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program at a new terminal.
    ///
    /// # Panics
    /// When it cannot.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn start(mut command: Command) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let side = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        command
            .stdin(side(&pty.slave))
            .stdout(side(&pty.slave))
            .stderr(pty.slave);
        let program = command.spawn().expect("the program");
        // It holds the other side; only the program shall.
        drop(command);
        let mut output = File::from(side(&pty.master));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend_from_slice(&piece[..count]);
            }
        });
        Self {
            program,
            keys: File::from(pty.master),
            screen,
        }
    }

    /// Everything that was shown.
    pub fn screen(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits until something is shown.
    ///
    /// # Panics
    /// When it is not.
    pub fn wait_for(&self, text: &str) {
        let what = format!("the terminal shows {text:?}");
        if !self.screen().contains(text) {
            wait_until(&what, || self.screen().contains(text));
        }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Waits until the program has ended; its exit code.
    ///
    /// # Panics
    /// When it does not.
    pub fn ended(&mut self) -> Option<i32> {
        let mut ended = None;
        wait_until("the program at the terminal has ended", || {
            ended = self.program.try_wait().ok().flatten();
            ended.is_some()
        });
        ended.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "this is what one wants to read then")]
            {
                eprintln!("The terminal:\n{}", self.screen());
            }
        }
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
