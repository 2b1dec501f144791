//! Signals: while stages run they are the scheduler's; before and after, they end the program at once, which is safe at
//! any time.

use std::sync::{Arc, Mutex};

use mergelab_wire::exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exec::heeded;

type Handler = Box<dyn Fn() + Send>;

/// Where signals go.
pub(super) struct Interrupts {
    handler: Arc<Mutex<Option<Handler>>>,
}

impl Interrupts {
    /// Takes over INT, TERM and HUP, but for those that whoever started us wants ignored (`nohup`).
    pub(super) fn install() -> Self {
        let handler: Arc<Mutex<Option<Handler>>> = Arc::default();
        if let Ok(mut signals) = Signals::new(heeded(&[SIGINT, SIGTERM, SIGHUP])) {
            let handler = handler.clone();
            std::thread::spawn(move || {
                for _ in signals.forever() {
                    match &*handler.lock().expect("no holder of this lock panics") {
                        Some(handler) => handler(),
                        None => {
                            say!("interrupted");
                            std::process::exit(exit::INTERRUPTED.into());
                        }
                    }
                }
            });
        }
        Self { handler }
    }

    /// Gives signals to somebody.
    pub(super) fn give_to(&self, handler: Handler) {
        *self.handler.lock().expect("no holder of this lock panics") = Some(handler);
    }

    /// Takes them back.
    pub(super) fn take_back(&self) {
        self.handler.lock().expect("no holder of this lock panics").take();
    }
}
