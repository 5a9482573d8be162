//! Both fakes as a program, for scripts, browser tests and trying things by hand:
//! `fakes --telegram 127.0.0.1:9001 --token 123456:TEST --provider 127.0.0.1:9002`, then
//! `curl 127.0.0.1:9001/control/send_text -d chat=7 -d text=Hello` and `curl '127.0.0.1:9001/control/messages?chat=7'`.

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use test_support::fake_provider::{DEFAULT_KEY, DEFAULT_MODEL};
use test_support::{FakeProvider, FakeTelegram};

/// A strict fake Bot API and a strict fake AI provider.
#[derive(Parser)]
struct Args {
    /// Where the Bot API listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9001")]
    telegram: SocketAddr,
    /// Token of the bot that exists; may be repeated.
    #[arg(long, default_value = "123456:TEST")]
    token: Vec<String>,
    /// Where the provider listens.
    #[arg(long, default_value = "127.0.0.1:9002")]
    provider: SocketAddr,
    /// Key the provider accepts; may be repeated.
    #[arg(long, default_value = DEFAULT_KEY)]
    key: Vec<String>,
    /// Keep counters only: for long runs.
    #[arg(long)]
    no_record: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let telegram = FakeTelegram::start_on(args.telegram).await?;
    for (at, token) in args.token.iter().enumerate() {
        telegram.add_bot(token, &format!("fake_{}_bot", at + 1));
    }
    let provider = FakeProvider::start_on(args.provider).await?;
    provider.accept_keys(&args.key.iter().map(String::as_str).collect::<Vec<_>>());
    telegram.record(!args.no_record);
    provider.record(!args.no_record);
    println!("TELEGRAM_API_URL={}", telegram.url());
    println!(
        "OPENAI_BASE_URL={} OPENAI_API_KEY={} OPENAI_MODEL={DEFAULT_MODEL}",
        provider.url(),
        args.key.join(" or ")
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
