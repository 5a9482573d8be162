//! Logs and metrics.

use std::{io::IsTerminal, sync::OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, Settings};

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds; without set buckets the exporter would make summaries, which cannot be added up over replicas.
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// Logs go to standard error. A second call changes nothing (tests start several servers in one process).
pub fn start_logs(settings: &Settings) {
    // These say more than anybody wants to read, and async-openai's errors may quote a body.
    let quiet = "async_openai=off,sqlx=warn,hyper=warn,h2=warn,rustls=warn";
    let filter = EnvFilter::new(format!("{},{quiet}", settings.log));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match settings.log_format {
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
        LogFormat::Pretty => {
            let colours = std::io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(colours)
                .with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
    };
    drop(started);
}

/// The recorder of this process, in Prometheus' text form.
pub fn metrics() -> Option<&'static PrometheusHandle> {
    if METRICS.get().is_none() {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS);
        if let Ok(handle) = builder.and_then(PrometheusBuilder::install_recorder) {
            let _ = METRICS.set(handle);
        }
    }
    METRICS.get()
}
