//! Running the queue: taking jobs, keeping their leases, stopping them, ending them; and the work that is done by the clock.
//!
//! What a job does is said in `bot` (for updates of a chat); here is only how jobs run. To add a kind of job: a file of its own
//! and a branch where the runner hands a job over.

mod runner;
mod scheduler;

pub use runner::{GRACE, RunnerSettings, run};
pub use scheduler::schedule;
