//! The one place of this program with `unsafe`: what a child does between `fork` and `exec`.

use std::process::Command;

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
