//! The command line.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use domain::{ApiKeyId, BotId, Email, LimitKind, Password, Role as StaffRole, Scope, UserId, views::IntakeMode};
use services::{Actor, LimitOwner, LimitSetting, Verified};
use tokio_util::sync::CancellationToken;

use crate::{
    doctor,
    embedded::{self, Embedded},
    lifecycle::{Deck, Role, reachable},
    settings::{Fault, KNOWN, Settings, Sources},
    telemetry,
};

/// Settings are wrong: nothing was started.
const EXIT_SETTINGS: u8 = 2;
/// Ended by a signal, as shells count it.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs Telegram AI bots, and is the deck from which people govern them.
#[derive(Parser)]
#[command(name = "botdeck", version, propagate_version = true)]
struct Cli {
    /// A TOML file with settings, their names in lower case [default: botdeck.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets what the environment sets, such as BOTDECK_ADDR=0.0.0.0:8080; secrets are better kept off the command line
    #[arg(long = "set", global = true, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Starts a private Postgres and Redis under .local/ where no other is set (needs a checkout)
    #[arg(long, global = true)]
    embedded: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the dashboard and runs the bots
    Serve {
        /// What this process does
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Role::Web, Role::Intake, Role::Worker, Role::Scheduler])]
        roles: Vec<Role>,
        /// Address and port to listen on (BOTDECK_ADDR)
        #[arg(long, value_name = "HOST:PORT")]
        addr: Option<String>,
    },
    /// Brings the database's schema up to date
    Migrate,
    /// Checks database, Redis, Telegram, model, clock and disk, and says what to do
    Doctor,
    /// Lists every setting
    Settings,
    /// Staff accounts
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Bots
    #[command(subcommand)]
    Bot(BotCommand),
    /// Limits of plans, users, bots, models and the whole deployment
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// The audit trail
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Subcommand)]
enum AdminCommand {
    /// Makes an account
    Create {
        #[arg(long)]
        email: Email,
        #[arg(long)]
        role: StaffRole,
        /// Reads the password from standard input
        #[arg(long, required = true)]
        password_stdin: bool,
    },
    /// Sets a new password, read from standard input
    ResetPassword {
        #[arg(long)]
        email: Email,
        /// Reads the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Subcommand)]
enum BotCommand {
    /// Adds a bot; its token comes from the environment variable named
    Add {
        #[arg(long, value_name = "NAME")]
        token_env: String,
        #[arg(long, value_enum, default_value = "polling")]
        mode: Mode,
    },
    /// Lists the bots
    List,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    Polling,
    Webhook,
}

#[derive(Subcommand)]
enum LimitsCommand {
    /// Shows all plans, and whatever else has limits
    Show,
    /// Sets limits of a plan, or of what an option names; those not named stay
    Set {
        #[command(flatten)]
        owner: OwnerArgs,
        /// The plan, unless an option says whose limits these are; then messages_per_minute=20, tokens_per_day=none,
        /// money_per_month=2.50 (dollars), images_total=100…, zone=Europe/Berlin (whose days and months count), soft=80 (percent
        /// from which staff is told)
        #[arg(required = true, value_name = "PLAN NAME=VALUE|none")]
        words: Vec<String>,
    },
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct OwnerArgs {
    /// A user, by the id in the address of their page
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// A bot, by the id that `bot list` shows: all who write to it together
    #[arg(long, value_name = "ID")]
    bot: Option<BotId>,
    /// An API key, by the id in the address of its requests
    #[arg(long, value_name = "ID")]
    key: Option<ApiKeyId>,
    /// A model: all who ask it together
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Everything that runs here together
    #[arg(long)]
    deployment: bool,
}

impl OwnerArgs {
    fn owner(self) -> Option<LimitOwner> {
        let user = self.user.map(LimitOwner::User);
        let bot = self.bot.map(LimitOwner::Bot);
        let key = self.key.map(LimitOwner::ApiKey);
        let model = self.model.map(LimitOwner::Model);
        user.or(bot)
            .or(key)
            .or(model)
            .or(self.deployment.then_some(LimitOwner::Deployment))
    }
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Checks the chain of hashes; exit code 1 when a row was changed, added or removed
    Verify,
}

/// The whole program; the exit code is 0 when all went well, 1 after a failure, 2 when settings or arguments are wrong.
pub fn main() -> ExitCode {
    // Before anything speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("botdeck: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(Stop::Settings(faults)) => {
            eprintln!("{}", report(&faults));
            ExitCode::from(EXIT_SETTINGS)
        }
        Err(Stop::Failed(error)) => {
            eprintln!("botdeck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Stop {
    Settings(Vec<Fault>),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// All faults, one line each.
pub fn report(faults: &[Fault]) -> String {
    let head = match faults.len() {
        1 => "botdeck: one setting is wrong".to_owned(),
        count => format!("botdeck: {count} settings are wrong"),
    };
    faults.iter().fold(head, |text, fault| format!("{text}\n  {fault}"))
}

async fn run(cli: Cli) -> Result<ExitCode, Stop> {
    if matches!(cli.command, Command::Settings) {
        print!("{}", settings_table());
        return Ok(ExitCode::SUCCESS);
    }
    let mut flags = BTreeMap::new();
    let mut faults = Vec::new();
    for pair in &cli.set {
        match pair.split_once('=') {
            Some((name, value)) => drop(flags.insert(name.trim().to_uppercase(), value.to_owned())),
            None => faults.push(Fault {
                name: "--set".into(),
                expected: "NAME=VALUE".into(),
                found: None,
            }),
        }
    }
    let (mut sources, read_faults) = Sources::read(flags, cli.config.as_deref());
    faults.extend(read_faults);
    if let Command::Serve { addr: Some(addr), .. } = &cli.command {
        sources.flags.insert("BOTDECK_ADDR".into(), addr.clone());
    }
    let serves = matches!(cli.command, Command::Serve { .. });
    let examines = matches!(cli.command, Command::Doctor);
    if !examines && !cli.embedded {
        faults.extend(sources.missing_storage());
    }
    // What is wrong is said before anything is started, and what is typed is read before signals wait for us.
    let mut settings = Settings::parse(&sources, faults).map_err(Stop::Settings)?;
    let password = match &cli.command {
        Command::Admin(_) => Some(read_password()?),
        _ => None,
    };
    let stop = CancellationToken::new();
    if serves || cli.embedded {
        stop_on_signal(stop.clone())?;
    }
    let mut servers = None;
    if cli.embedded {
        match embedded::use_key(&mut sources).and_then(|()| Embedded::start(&mut sources)) {
            Ok(started) => servers = started,
            // The rest is looked at all the same.
            Err(error) if examines => eprintln!("botdeck: {error:#}\n"),
            Err(error) => return Err(error.into()),
        }
        let missing = if examines {
            Vec::new()
        } else {
            sources.missing_storage()
        };
        settings = Settings::parse(&sources, missing).map_err(Stop::Settings)?;
    }
    let code = tokio::select! {
        code = command(cli.command, settings, password, &stop) => code,
        () = stop.cancelled(), if !serves => Ok(ExitCode::from(EXIT_INTERRUPTED)),
    };
    drop(servers);
    code
}

async fn command(
    command: Command,
    settings: Settings,
    password: Option<Password>,
    stop: &CancellationToken,
) -> Result<ExitCode, Stop> {
    match command {
        Command::Serve { roles, .. } => serve(settings, &roles, stop).await,
        Command::Doctor => {
            let findings = doctor::examine(&settings).await;
            print!("{}", doctor::table(&findings));
            let bad = findings.iter().any(|finding| finding.state == doctor::State::Bad);
            Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Migrate => {
            Deck::open(settings, true).await?;
            println!("The schema is up to date.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Admin(command) => {
            let password = password.context("no password was read")?;
            admin(command, password, &open(settings).await?).await
        }
        Command::Bot(command) => bot(command, &open(settings).await?).await,
        Command::Limits(command) => limits(command, &open(settings).await?).await,
        Command::Audit(AuditCommand::Verify) => verify(&open(settings).await?).await,
        Command::Settings => Ok(ExitCode::SUCCESS),
    }
}

/// Commands work on a fresh database too.
async fn open(settings: Settings) -> anyhow::Result<Deck> {
    Deck::open(settings, true).await
}

fn operator() -> Actor {
    Actor::system("command line")
}

async fn serve(settings: Settings, roles: &[Role], stop: &CancellationToken) -> Result<ExitCode, Stop> {
    telemetry::start_logs(&settings);
    let open_at = settings.open_at();
    let deck = tokio::select! {
        deck = Deck::open(settings, true) => deck?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    deck.serve(roles, stop.clone(), |addr, link| {
        let shown = open_at.unwrap_or_else(|| format!("http://{}", reachable(addr)));
        eprintln!("\n  Botdeck is ready: {shown}");
        if let Some(link) = link {
            eprintln!("  Make the owner account (once, within a day): {link}");
        }
        eprintln!();
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// From its return on, Ctrl-C and SIGTERM cancel `stop` instead of ending the process.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

async fn admin(command: AdminCommand, password: Password, deck: &Deck) -> Result<ExitCode, Stop> {
    match command {
        AdminCommand::Create { email, role, .. } => {
            deck.services
                .auth()
                .create_staff(&operator(), email.clone(), role, password)
                .await?;
            println!("{email} can sign in as {role}.");
        }
        AdminCommand::ResetPassword { email, .. } => {
            deck.services
                .auth()
                .reset_password(&operator(), &email, password)
                .await?;
            println!("{email} has a new password.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read_password() -> anyhow::Result<Password> {
    if std::io::stdin().is_terminal() {
        eprintln!("Type the password, then Enter and Ctrl-D:");
    }
    let mut text = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .context("standard input")?;
    text.trim_end_matches(['\r', '\n'])
        .parse()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

async fn bot(command: BotCommand, deck: &Deck) -> Result<ExitCode, Stop> {
    match command {
        BotCommand::Add { token_env, mode } => {
            let token = token_of(&token_env)?;
            let mode = match mode {
                Mode::Polling => IntakeMode::Polling,
                Mode::Webhook => IntakeMode::Webhook,
            };
            let bot = deck.services.bots().add(&operator(), token.into(), mode).await?;
            println!("{}  {}  @{}", bot.id, bot.name, bot.username.unwrap_or_default());
        }
        BotCommand::List => {
            for bot in deck.services.bots().list(&operator()).await? {
                let state = match (&bot.fault, bot.enabled, bot.running) {
                    (Some(fault), ..) => fault.as_str(),
                    (None, true, true) => "running",
                    (None, true, false) => "waiting for a replica",
                    (None, false, _) => "stopped",
                };
                let username = bot.username.map(|name| format!("@{name}")).unwrap_or_default();
                println!("{}  {}  {username}  {:?}  {state}", bot.id, bot.name, bot.mode);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Repeats what was given only where it can be no token: somebody may take the option for the token's own place.
fn token_of(variable: &str) -> anyhow::Result<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if variable.is_empty() || variable.len() > 64 || !variable.bytes().all(is_name) {
        bail!("--token-env: expected the name of an environment variable that holds the token, not the token itself");
    }
    let Some(token) = std::env::var_os(variable) else {
        bail!("the environment has no {variable}")
    };
    // Its own error would show the value.
    token
        .into_string()
        .map_err(|_| anyhow::anyhow!("{variable}: expected a bot token, found what is not text"))
}

async fn limits(command: LimitsCommand, deck: &Deck) -> Result<ExitCode, Stop> {
    match command {
        LimitsCommand::Show => {
            for plan in deck.services.plans().list(&operator()).await? {
                let default = if plan.is_default { " (default)" } else { "" };
                println!("{}{default}, {} users", plan.name, plan.users);
                for (kind, amount) in plan.limits {
                    // The usual ones in any case, others where they are set.
                    if amount.is_some() || LimitKind::USUAL.contains(&kind) {
                        println!("  {}", shown(kind, amount));
                    }
                }
                print_manner(&plan.zone, plan.soft_percent);
            }
            for one in deck.services.limits().list(&operator()).await? {
                let subject = match one.scope {
                    Scope::Deployment => String::new(),
                    Scope::Model => format!(" {}", one.subject),
                    _ => format!(" {} {}", one.subject, one.name),
                };
                println!("{}{subject}", one.scope.name());
                for (kind, amount) in one.limits {
                    println!("  {}", shown(kind, Some(amount)));
                }
                print_manner(&one.zone, one.soft_percent);
            }
        }
        LimitsCommand::Set { owner, words } => match owner.owner() {
            Some(owner) => {
                deck.services
                    .limits()
                    .set(&operator(), &owner, &parse_settings(&words)?)
                    .await?;
                println!("The limits are set; they hold from the next call on.");
            }
            None => {
                let Some((plan, settings)) = words.split_first().filter(|(_, settings)| !settings.is_empty()) else {
                    eprintln!("botdeck: expected a plan and NAME=VALUE or NAME=none");
                    return Ok(ExitCode::from(EXIT_SETTINGS));
                };
                let Some(id) = deck.services.plans().by_name(plan).await? else {
                    return Err(anyhow::anyhow!("there is no plan {plan}; botdeck limits show lists them").into());
                };
                let settings = parse_settings(settings)?;
                deck.services.plans().set_limits(&operator(), id, settings).await?;
                println!("The limits of {plan} are set; they hold from the next message on.");
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(kind: LimitKind, amount: Option<i64>) -> String {
    let amount = amount.map_or_else(|| "none".to_owned(), |amount| kind.show_amount(Some(amount)));
    format!("{kind}={amount}")
}

/// Only what is not as always.
fn print_manner(zone: &str, soft_percent: i64) {
    if zone != "UTC" {
        println!("  zone={zone}");
    }
    if soft_percent != 80 {
        println!("  soft={soft_percent}");
    }
}

fn parse_settings(texts: &[String]) -> anyhow::Result<Vec<LimitSetting>> {
    texts.iter().map(|text| parse_setting(text)).collect()
}

fn parse_setting(text: &str) -> anyhow::Result<LimitSetting> {
    let Some((name, value)) = text.split_once('=') else {
        bail!("{text}: expected NAME=VALUE or NAME=none")
    };
    let (name, value) = (name.trim(), value.trim());
    if value.is_empty() {
        bail!("{name}: expected a value, or none for no limit");
    }
    match name {
        "zone" => return Ok(LimitSetting::Zone(value.to_owned())),
        "soft" => {
            let percent = value.parse().map_err(|_| anyhow::anyhow!("soft: expected 1 to 100"))?;
            return Ok(LimitSetting::Soft(percent));
        }
        _ => {}
    }
    let kind: LimitKind = name.parse().map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    let amount = kind
        .parse_amount(value)
        .map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    Ok(LimitSetting::Limit(kind, amount))
}

async fn verify(deck: &Deck) -> Result<ExitCode, Stop> {
    match deck.services.audit().verify().await? {
        Verified::Whole { rows } => {
            println!("The audit trail is whole: {rows} rows.");
            Ok(ExitCode::SUCCESS)
        }
        Verified::Broken { id, why } => {
            println!("The audit trail is broken: row {id} {why}.");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn settings_table() -> String {
    let mut text = String::from("Set by environment, by --set NAME=VALUE, or in botdeck.toml in lower case.\n\n");
    for known in KNOWN {
        let default = if known.default.is_empty() {
            String::new()
        } else {
            format!(" [{}]", known.default)
        };
        text.push_str(&format!("{:28} {}{default}\n", known.name, known.about));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn scripts_may_say_embedded_before_what_a_person_says_after_them() {
        for (args, embedded) in [
            (["botdeck", "--embedded", "serve"].as_slice(), true),
            (&["botdeck", "serve", "--embedded"], true),
            (
                &["botdeck", "--embedded", "serve", "--embedded", "--roles", "web"],
                true,
            ),
            (&["botdeck", "--embedded", "bot", "list"], true),
            (&["botdeck", "serve"], false),
        ] {
            let cli = Cli::try_parse_from(args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
            assert_eq!(cli.embedded, embedded, "{args:?}");
        }
    }

    #[test]
    fn the_readme_names_every_command_and_every_setting_with_its_default() {
        let readme = include_str!("../../README.md");
        let mut commands = Vec::new();
        for command in Cli::command().get_subcommands() {
            let inner: Vec<_> = command.get_subcommands().map(|inner| inner.get_name()).collect();
            if inner.is_empty() {
                commands.push(command.get_name().to_owned());
            }
            commands.extend(inner.iter().map(|inner| format!("{} {inner}", command.get_name())));
        }
        let said: Vec<&str> = readme
            .split_once("Commands: ")
            .and_then(|(_, rest)| rest.split_once(". In a checkout"))
            .map(|(list, _)| list.split('`').skip(1).step_by(2).collect())
            .unwrap();
        let said: Vec<String> = said
            .iter()
            .map(|text| {
                let words = text.split_whitespace().filter(|word| *word != "botdeck");
                let words: Vec<&str> = words
                    .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                    .collect();
                words.join(" ")
            })
            .collect();
        assert_eq!(said, commands);

        // Rows of the table: names in the first column, their defaults in the second, in the same order.
        let rows = readme.lines().filter(|line| line.starts_with("| `"));
        let mut table = Vec::new();
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let names = cells[1].split('`').skip(1).step_by(2);
            let mut defaults = cells[2].split('`').skip(1).step_by(2);
            for name in names {
                let name = if name == "…_FILE" {
                    "BOTDECK_SECRET_KEY_FILE"
                } else {
                    name
                };
                table.push((name, defaults.next().unwrap_or_default()));
            }
        }
        let known: Vec<_> = KNOWN.iter().map(|known| (known.name, known.default)).collect();
        let sorted = |mut list: Vec<(&'static str, &'static str)>| {
            list.sort_unstable();
            list
        };
        assert_eq!(sorted(table), sorted(known));
    }
}
