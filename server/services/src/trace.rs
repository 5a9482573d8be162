//! The trace that is being worked for: a request's, or a job's. What it makes elsewhere (a line of the ledger) names it, so that all of
//! one cause is found together.

use std::future::Future;

use domain::TraceId;

tokio::task_local! {
    static CURRENT: Option<TraceId>;
}

/// Does `work` as part of a trace. A task that it spawns has to be handed [`current_trace`].
pub fn within_trace<F: Future>(trace: Option<TraceId>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(trace, work)
}

/// What this task works for; `None` of what nobody asked for.
pub fn current_trace() -> Option<TraceId> {
    CURRENT.try_with(|trace| *trace).ok().flatten()
}
