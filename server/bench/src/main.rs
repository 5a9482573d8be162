//! Measures Botdeck: `bin/bench`.
//!
//! Here live the loads and what is read off while they run. The same message is answered by Botdeck (a process of its own, the
//! built program) and by a bare loop ([`bare`], a process too), against the same fakes, which run in this process; the same call of
//! another program is passed on by Botdeck and by a bare proxy ([`gateway`]). Nothing here is part of the product. A new benchmark is a module, an arm in `run` and a field of [`report::Report`].

mod bare;
mod deck;
mod gateway;
mod hashing;
mod load;
mod postgres;
mod process;
mod report;
mod run;
mod site;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use report::Report;

/// Measures Botdeck next to a bare loop and a bare proxy that do the same without it, its password hashing, and what a browser loads.
///
/// Expects in the environment: DATABASE_URL (may create databases), REDIS_URL, BOTDECK_PROGRAM, LEPTOS_SITE_ROOT.
#[derive(Parser)]
#[command(name = "bin/bench", bin_name = "bin/bench")]
struct Cli {
    /// [default: all]
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    size: run::Size,
    #[command(flatten)]
    calls: gateway::Size,
    /// Some minutes instead of half an hour: everything a tenth or less
    #[arg(long, global = true)]
    quick: bool,
    /// Writes the figures there as JSON, too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shows where the database's time goes
    #[arg(long, global = true)]
    statements: bool,
}

#[derive(Clone, Subcommand)]
enum What {
    /// Everything
    All,
    /// Messages answered: Botdeck by polling and by webhook, and the bare loop
    Bot,
    /// Calls of other programs: through Botdeck, with limits and without, through a bare proxy, and straight to the provider
    Gateway,
    /// Hashing one password
    Argon2,
    /// What a browser loads
    Wasm,
    /// The bare loop itself, started by `bot`
    #[command(hide = true)]
    Bare(bare::Settings),
    /// The bare proxy, started by `gateway`
    #[command(hide = true)]
    BareProxy(gateway::proxy::ProxySettings),
    /// The fake provider as a process, started by `gateway`
    #[command(hide = true)]
    FakeProvider(gateway::proxy::ProviderSettings),
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(measure(cli)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(cli: Cli) -> anyhow::Result<()> {
    let what = cli.what.unwrap_or(What::All);
    let mut report = Report::default();
    match what {
        What::Bare(settings) => return bare::answer_for_ever(settings).await,
        What::BareProxy(settings) => return gateway::proxy::pass_on(settings).await,
        What::FakeProvider(settings) => return gateway::proxy::provide(settings).await,
        _ => {}
    }
    // The hash first: it is to be measured on a quiet machine.
    if matches!(what, What::All | What::Argon2) {
        report.argon2 = Some(hashing::measure()?);
    }
    if matches!(what, What::All | What::Wasm) {
        report.site = Some(site::measure()?);
    }
    if matches!(what, What::All | What::Bot) {
        report.bot = Some(run::all(&cli.size, cli.quick).await?);
    }
    if matches!(what, What::All | What::Gateway) {
        report.gateway = Some(gateway::all(&cli.calls, cli.quick).await?);
    }
    print!("{}", report.table(cli.statements));
    if let Some(path) = cli.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn no_two_arguments_have_one_name() {
        Cli::command().debug_assert();
    }
}
