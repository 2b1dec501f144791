//! A damaged file is an error, also where the library takes it for a mistake in the program.
//!
//! The decoders of the `parquet` crate assert what a sound file would have made true. Their panics are caught here and
//! become errors; nothing is printed for them, since the error says it all.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use parquet::errors::ParquetError;

thread_local! {
    /// Whether this thread is inside of the library.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Calls the library, and gives its panic as an error. What it was working on must not be used after one.
pub(super) fn caught<T, E: From<ParquetError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                others(info);
            }
        }));
    });
    INSIDE.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(false);
    result.unwrap_or_else(|payload| Err(ParquetError::General(text(payload.as_ref()).to_owned()).into()))
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("its bytes make no sense")
}
