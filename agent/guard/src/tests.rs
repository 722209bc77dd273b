use std::os::fd::AsFd;
use std::thread;

use rustix::pipe::pipe;

use super::*;

/// Makes the file of a guard, and locks it as a guard does.
fn file(run_dir: &Path, deadline: Deadline) -> File {
    sys::file::replace(&file_in(run_dir), b"").unwrap();
    let file = sys::trusted::open_read_write(file_in(run_dir)).unwrap();
    deadline.write(&file).unwrap();
    file.try_lock().unwrap();
    file
}

#[test]
fn a_deadline_moves_while_its_guard_is_alive() {
    let run_dir = tempfile::tempdir().unwrap();
    let path = run_dir.path();
    assert_eq!(of_guest(path).unwrap(), None);
    assert!(!move_to(path, Deadline(1)).unwrap());
    let held = file(path, Deadline(7));
    assert_eq!(of_guest(path).unwrap(), Some(Deadline(7)));
    assert!(move_to(path, Deadline(9)).unwrap());
    assert_eq!(of_guest(path).unwrap(), Some(Deadline(9)));
    drop(held);
    assert_eq!(of_guest(path).unwrap(), None, "the guard is dead");
}

#[test]
fn a_guard_ends_with_its_guest_and_not_at_a_deadline() {
    let run_dir = tempfile::tempdir().unwrap();
    let held = file(run_dir.path(), Deadline(1));
    let (read_end, guest) = pipe().unwrap();
    let path = run_dir.path().to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let guard = thread::spawn(move || {
        watch(&path, &held, read_end.as_fd(), || ready.send(()).unwrap()).unwrap();
    });
    is_ready.recv().unwrap();
    assert!(!guard.is_finished());
    drop(guest);
    guard.join().unwrap();
}
