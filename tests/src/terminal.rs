//! A program on a pseudo-terminal: its screen, and keys that are typed into it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::openpty;

use crate::wait_until;

/// A program on a terminal. Dropping it kills the program.
#[derive(Debug)]
pub struct Terminal {
    program: Child,
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program on a new terminal.
    pub fn start(mut command: Command) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let side = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        command
            .stdin(side(&pty.slave))
            .stdout(side(&pty.slave))
            .stderr(pty.slave);
        let program = command.spawn().expect("the program");
        // The command holds the program's side of the terminal open.
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

    /// Returns everything that the program has printed.
    pub fn screen(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits until the program has printed a text.
    pub fn wait_for(&self, text: &str) {
        let description = format!("the terminal shows {text:?}");
        wait_until(&description, || self.screen().contains(text));
    }

    /// Types keys.
    pub fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Waits until the program ends, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the program on the terminal ends", || {
            status = self.program.try_wait().ok().flatten();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows the terminal")]
            {
                eprintln!("The terminal:\n{}", self.screen());
            }
        }
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
