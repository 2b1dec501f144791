//! Running what is not up to date: which stage may start when, with what, and what becomes of its result.

pub mod child;
mod dispatch;
mod links;
mod machine;
mod os;
pub mod outlook;
mod recipes;
mod room;
mod schedule;
mod supervise;
mod survey;
#[cfg(test)]
mod tests;
mod work;

pub use machine::{Gpu, Machine, shortfalls, size, unsupported};
pub use os::heeded;
pub use outlook::{History, Outlook, State, hub_location, made_again, missing, outlook};
pub use schedule::{Ground, Options, Outcome, Report, Watcher, run};
pub use supervise::Supervisor;
pub use survey::Surveyor;
