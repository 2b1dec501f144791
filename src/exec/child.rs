//! `mergelab child`: the hidden supervisor that stands between us and each program we start.
//!
//! It leads a process group of its own, adopts every descendant that loses its parent, and leaves no process behind: not
//! when the program ends, not when it is told to stop, and not when `mergelab` is killed. That it learns from its
//! standard input, a pipe whose other end only `mergelab` holds. Locks come as descriptors from 3 on; the program
//! inherits them, so that an orphan, should there be one, keeps its keys until it is gone.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::os::{adopt_orphans, die_with_parent, heeded};

/// How long a program may take to end after TERM.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What `mergelab` sends a supervisor that shall not wait for the grace: kill everything. A signal of its own, not a
/// second TERM, since a cluster that ends a job sends TERM to every process, and `mergelab` then passes its own on.
pub(crate) const AT_ONCE: Signal = Signal::QUIT;

/// Exit code for a program that cannot be started.
pub(crate) const CANNOT_START: i32 = 127;

/// Runs a program under supervision and gives its exit code; 128 plus the signal where one ended it.
pub fn supervise(program: &[std::ffi::OsString]) -> i32 {
    let Some((name, arguments)) = program.split_first() else { return CANNOT_START };
    adopt_orphans();
    let Ok((mut woken, waker)) = UnixStream::pair() else { return CANNOT_START };
    // TERM and QUIT are what `mergelab` says: they count even where they were ignored when it was started.
    let stops: Vec<i32> = [SIGTERM].into_iter().chain(heeded(&[SIGINT, SIGHUP])).collect();
    for &signal in stops.iter().chain(&[SIGQUIT, SIGCHLD]) {
        let Ok(waker) = waker.try_clone() else { return CANNOT_START };
        if signal_hook::low_level::pipe::register(signal, waker).is_err() {
            return CANNOT_START;
        }
    }
    let told_to_stop = Arc::new(AtomicBool::new(false));
    let told_to_kill = Arc::new(AtomicBool::new(false));
    for signal in stops {
        let _ = signal_hook::flag::register(signal, told_to_stop.clone());
    }
    let _ = signal_hook::flag::register(SIGQUIT, told_to_kill.clone());
    if woken.set_nonblocking(true).is_err() {
        return CANNOT_START;
    }

    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    die_with_parent(&mut command);
    let main = match command.spawn() {
        Ok(child) => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
        Err(error) => {
            // The log may lie on a full disk.
            let _ = writeln!(std::io::stderr(), "cannot start {}: {error}", name.display());
            return CANNOT_START;
        }
    };

    let mut code = None;
    let mut deadline: Option<Instant> = None;
    loop {
        let is_alone = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == main => {
                    let status = std::process::ExitStatus::from_raw(status.as_raw());
                    code = Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break false,
                // Who has no child has no descendant either: orphans become children of ours. So `/proc` is searched
                // only where somebody has to be ended, and costs nothing else anything.
                Err(_) => break true,
            }
        };
        if let Some(code) = code.filter(|_| is_alone) {
            return code;
        }
        let stop = code.is_some() || told_to_stop.load(Ordering::Relaxed) || parent_is_gone();
        let now = Instant::now();
        if told_to_kill.load(Ordering::Relaxed) {
            deadline = Some(now);
        }
        match deadline {
            None if stop => {
                signal_all(&descendants(), Signal::TERM);
                // What the program left behind is not waited for as long as the program itself.
                deadline = Some(now + if code.is_some() { Duration::from_secs(1) } else { GRACE });
            }
            Some(at) if now >= at => signal_all(&descendants(), Signal::KILL),
            _ => {}
        }
        let pause = if deadline.is_some() { Duration::from_millis(50) } else { Duration::from_hours(1) };
        let mut fds = vec![PollFd::new(&woken, PollFlags::IN)];
        let stdin = rustix::stdio::stdin();
        if deadline.is_none() {
            // Asked for nothing, poll still reports that the other end was closed.
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty()));
        }
        let pause = Timespec::try_from(pause).ok();
        let _ = poll(&mut fds, pause.as_ref());
        let mut signals = [0; 64];
        while matches!(woken.read(&mut signals), Ok(count) if count > 0) {}
    }
}

/// Whether the other end of the pipe on standard input was closed.
fn parent_is_gone() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

fn signal_all(family: &[Pid], signal: Signal) {
    for pid in family {
        // One that has just ended is what we want.
        let _ = kill_process(*pid, signal);
    }
}

/// Every living descendant of this process.
fn descendants() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; the state and the parent's id follow its end.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
        if let Some(parent) = parent.filter(|_| state != Some("Z")) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = Vec::new();
    let mut seen = HashSet::from([own]);
    let mut pending = vec![own];
    while let Some(parent) = pending.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child) {
                family.extend(Pid::from_raw(child));
                pending.push(child);
            }
        }
    }
    family
}

/// Puts a command into a process group of its own.
pub(super) fn own_group(command: &mut Command) {
    command.process_group(0);
}
