//! Running the queue: taking jobs, keeping their leases, stopping them, ending them; and the work that is done by the clock.
//!
//! What a job does is said in `bot`, since every job is an update; here is only how jobs run. To add something done by the clock: a step
//! in `scheduler`, idempotent, since every replica does it.

mod runner;
mod scheduler;

pub use runner::{GRACE, RunnerSettings, run};
pub use scheduler::schedule;
