//! What only Linux can do, and the one place of this program with `unsafe`: what a child does between `fork` and `exec`.

use std::os::fd::OwnedFd;
use std::process::{Child, Command};

/// Makes the program end (SIGKILL) when the thread that starts it ends, so that it cannot outlive a supervisor that was
/// killed itself. Elsewhere than on Linux this does nothing.
pub(super) fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let supervisor = rustix::process::getpid();
        let prepare = move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The supervisor may have died before the signal was set.
            if rustix::process::getppid() == Some(supervisor) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        };
        #[expect(unsafe_code, reason = "two system calls, no allocation and no lock: both are safe after fork")]
        unsafe {
            command.pre_exec(prepare);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Makes this process the new parent of every descendant that loses its own. Elsewhere than on Linux descendants that
/// leave their process group are not found.
pub(super) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    {
        // Fails only on kernels without it, where the same holds as elsewhere.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
}

/// Those of some signals that were not ignored when this program was started (and none of which it handles yet): who
/// starts it under `nohup`, or from a script in the background, wants it to live on. Elsewhere than on Linux all of them.
pub fn heeded(signals: &[i32]) -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // Signal 1 is bit 0.
    signals.iter().copied().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect()
}

/// A descriptor that becomes readable when a child ends; none elsewhere than on Linux, where one has to ask again.
pub(super) fn end_of(child: &Child) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = child;
        None
    }
}
