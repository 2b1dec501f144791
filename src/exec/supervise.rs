//! Starting programs: our side of [`super::child`].

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use mergelab_wire::{Event, EventReader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::child::{AT_ONCE, GRACE, own_group};
use super::os::end_of;
use crate::stage::{Ending, Launcher, Program};

/// How often events are read while a program runs.
const TICK: Duration = Duration::from_millis(100);

/// How often a log is looked at for signs of life, where that is asked for.
const PULSE: Duration = Duration::from_secs(1);

/// How long a supervisor has for killing what it looks after, before it is itself killed with its group. Only it can find
/// what left the group, so this is for one that does not answer.
const SILENCE: Duration = Duration::from_secs(3);

/// Starts real programs, each under a supervisor of its own, and ends them when told to.
#[derive(Debug)]
pub struct Supervisor {
    mergelab: PathBuf,
    level: AtomicU8,
    wake: std::sync::Mutex<Option<PipeWriter>>,
    woken: PipeReader,
}

impl Supervisor {
    /// A supervisor that starts children through this program's own executable.
    ///
    /// # Errors
    /// When the executable cannot be found or there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (woken, wake) = io::pipe()?;
        let mergelab = match std::env::var_os("MERGELAB_CHILD") {
            Some(path) => path.into(),
            None => std::env::current_exe()?,
        };
        Ok(Self { mergelab, level: AtomicU8::new(0), wake: std::sync::Mutex::new(Some(wake)), woken })
    }

    /// Ends every program: TERM, and KILL after ten seconds. Called again, KILL at once. No further one is started.
    pub fn stop(&self) {
        self.level.fetch_add(1, Ordering::SeqCst);
        // Whoever waits sees the other end of the pipe close.
        self.wake.lock().expect("no holder of this lock panics").take();
    }

    fn spawn(&self, program: &Program<'_>) -> io::Result<(Child, PipeWriter)> {
        let log = OpenOptions::new().create(true).append(true).open(&program.log)?;
        let (lifeline, held) = io::pipe()?;
        let mut command = Command::new(&self.mergelab);
        command
            .arg("child")
            .arg("--")
            .arg(&program.program)
            .args(&program.arguments)
            .current_dir(&program.directory)
            .envs(yielding())
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(lifeline))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        for name in &program.unset {
            command.env_remove(name);
        }
        let mappings = program
            .locks
            .iter()
            .zip(3..)
            .map(|(lock, child_fd)| Ok(FdMapping { parent_fd: lock.as_fd().try_clone_to_owned()?, child_fd }))
            .collect::<io::Result<Vec<_>>>()?;
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        own_group(&mut command);
        Ok((command.spawn()?, held))
    }
}

/// How OpenMP threads wait for each other.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Unless our environment says otherwise, threads that wait leave their core: two programs with as many threads each as there
/// are cores would else wait against each other, and take many times as long.
fn yielding() -> Option<(&'static str, &'static str)> {
    std::env::var_os(WAIT_POLICY).is_none().then_some((WAIT_POLICY, "PASSIVE"))
}

impl Launcher for Supervisor {
    fn run(&self, program: &Program<'_>, on_event: &mut dyn FnMut(Event)) -> io::Result<Ending> {
        if self.is_stopped() {
            return Ok(Ending::Interrupted);
        }
        let started = Instant::now();
        let (mut child, _lifeline) = self.spawn(program)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        let end = end_of(&child);
        let mut events = program.events.as_ref().map(EventReader::new);
        let mut deliver = |events: &mut Option<EventReader>| -> io::Result<bool> {
            let said = events.as_mut().map(EventReader::poll).transpose()?.unwrap_or_default();
            let has_said = !said.is_empty();
            said.into_iter().for_each(&mut *on_event);
            Ok(has_said)
        };
        let mut stopping: Option<Instant> = None;
        let mut killing: Option<Instant> = None;
        let mut too_long: Option<Ending> = None;
        let mut pulse = Pulse::new(program);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let has_said = deliver(&mut events)?;
            let level = self.level.load(Ordering::SeqCst);
            let late = program.timeout.is_some_and(|limit| started.elapsed() > limit).then_some(Ending::TimedOut);
            let late = late.or_else(|| pulse.is_gone(program, has_said));
            match stopping {
                None if level > 0 || late.is_some() => {
                    too_long = late;
                    let _ = kill_process_group(pid, Signal::TERM);
                    stopping = Some(Instant::now());
                }
                Some(since) => {
                    if level > 1 && killing.is_none() {
                        let _ = kill_process(pid, AT_ONCE);
                        killing = Some(Instant::now());
                    }
                    let is_silent = killing.is_some_and(|since| since.elapsed() > SILENCE);
                    if is_silent || since.elapsed() > GRACE + SILENCE {
                        let _ = kill_process_group(pid, Signal::KILL);
                    }
                }
                None => {}
            }
            let mut fds: Vec<_> = end.iter().map(|end| PollFd::new(end, PollFlags::IN)).collect();
            if stopping.is_none() {
                fds.push(PollFd::new(&self.woken, PollFlags::IN));
            }
            let tick = Timespec::try_from(TICK).ok();
            let asks = events.is_some()
                || stopping.is_some()
                || program.timeout.is_some()
                || program.stalled_after.is_some()
                || end.is_none();
            let wait = if asks { tick } else { None };
            match poll(&mut fds, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        deliver(&mut events)?;
        Ok(match (too_long, self.is_stopped(), status.code()) {
            (Some(ending), ..) => ending,
            (_, _, Some(0)) => Ending::Code(0),
            (_, true, _) => Ending::Interrupted,
            (_, _, code) => Ending::Code(code.unwrap_or(128 + 9)),
        })
    }

    fn is_stopped(&self) -> bool {
        self.level.load(Ordering::SeqCst) > 0
    }
}

/// When a program last showed that it lives: by an event, or by a log that grew (progress bars draw into it).
struct Pulse {
    seen: Instant,
    looked: Instant,
    log_bytes: u64,
}

impl Pulse {
    fn new(program: &Program<'_>) -> Self {
        let now = Instant::now();
        Self { seen: now, looked: now, log_bytes: size_of(program) }
    }

    /// What to call it when it has been silent for too long.
    fn is_gone(&mut self, program: &Program<'_>, has_said: bool) -> Option<Ending> {
        let limit = program.stalled_after?;
        if has_said {
            self.seen = Instant::now();
        }
        if self.looked.elapsed() >= limit.min(PULSE) {
            self.looked = Instant::now();
            let bytes = size_of(program);
            if std::mem::replace(&mut self.log_bytes, bytes) != bytes {
                self.seen = self.looked;
            }
        }
        (self.seen.elapsed() > limit).then_some(Ending::Stalled(limit))
    }
}

fn size_of(program: &Program<'_>) -> u64 {
    std::fs::metadata(&program.log).map_or(0, |log| log.len())
}
