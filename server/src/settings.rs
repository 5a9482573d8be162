//! What can be set: by flag, environment or TOML file, in this order. All that is wrong is reported at once.

mod known;
mod sources;

use std::{net::SocketAddr, time::Duration};

use domain::{Email, Password};
use secrecy::{ExposeSecret, SecretString};
use services::{Database, KeyRing, RateLimiter};

pub use known::{KNOWN, Known};
use sources::set_in;
pub use sources::{Fault, Sources};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

/// Everything the program needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    pub addr: SocketAddr,
    pub public_url: Option<url::Url>,
    pub database_url: Option<SecretString>,
    pub redis_url: Option<SecretString>,
    pub keys: Option<KeyRing>,
    pub owner: Option<(Email, SecretString)>,
    pub telegram_token: Option<SecretString>,
    pub telegram_api_url: String,
    pub openai_key: Option<SecretString>,
    pub openai_url: String,
    pub openai_models: Vec<gateway::Model>,
    pub first_token: Duration,
    pub answer: Duration,
    pub workers: usize,
    pub bot_workers: usize,
    /// Requests to the provider at once.
    pub provider_calls: usize,
    /// Jobs of one bot.
    pub queue_limit: u32,
    /// Of the ledger.
    pub usage_months: u32,
    pub db_connections: u32,
    /// Texts older than this get one notice together.
    pub late_after: Option<Duration>,
    /// Answers may be shown as drafts.
    pub drafts: bool,
    pub trust_proxy: bool,
    pub metrics_token: Option<SecretString>,
    pub log: String,
    pub log_format: LogFormat,
}

/// Collects faults while values are read.
struct Reader<'a> {
    sources: &'a Sources,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.sources.get(name).map(str::to_owned).or_else(|| {
            let default = KNOWN.iter().find(|known| known.name == name)?.default;
            (!default.is_empty()).then(|| default.to_owned())
        })
    }

    fn secret(&self, name: &str) -> Option<SecretString> {
        self.sources.get(name).map(|value| value.to_owned().into())
    }

    fn fault(&mut self, name: &str, expected: impl Into<String>) {
        let secret = KNOWN.iter().any(|known| known.name == name && known.secret);
        let found = self.sources.get(name).filter(|_| !secret).map(without_secrets);
        self.faults.push(Fault {
            name: name.to_owned(),
            expected: expected.into(),
            found,
        });
    }

    fn parse<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if value.is_none() {
            self.fault(name, expected);
        }
        value
    }

    fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> u64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.parse(name, &expected, |text| {
            text.parse().ok().filter(|number| range.contains(number))
        });
        value.unwrap_or(*range.start())
    }
}

/// An address may carry `user:password@`, with a scheme before it or without one, and a key behind `?`.
fn without_secrets(text: &str) -> String {
    let scheme = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(scheme);
    let (hidden, rest) = match rest.rfind('@') {
        Some(at) => ("…", &rest[at..]),
        None => ("", rest),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{scheme}{hidden}{}…", &rest[..=at]),
        None => format!("{scheme}{hidden}{rest}"),
    }
}

fn http_url(text: &str) -> Option<url::Url> {
    let url = url::Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host().is_some()).then_some(url)
}

impl Settings {
    /// Reads and checks everything; on failure all faults, not only the first.
    pub fn parse(sources: &Sources, faults: Vec<Fault>) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { sources, faults };
        for name in sources.unknown() {
            let expected = "a known setting; botdeck settings lists them".to_owned();
            reader.faults.push(Fault {
                name: name.clone(),
                expected,
                found: None,
            });
        }
        let addr = reader.parse("BOTDECK_ADDR", "host:port such as 127.0.0.1:3000", |text| {
            text.replace("localhost:", "127.0.0.1:").parse().ok()
        });
        let public_url = reader.parse(
            "BOTDECK_PUBLIC_URL",
            "an address such as https://deck.example.org",
            http_url,
        );
        let database_url = checked(
            &mut reader,
            "DATABASE_URL",
            "postgres://user:password@host/name",
            |text| (text.starts_with("postgres://") || text.starts_with("postgresql://")) && Database::takes_url(text),
        );
        let redis_url = checked(
            &mut reader,
            "REDIS_URL",
            "redis://host:port, rediss://… or redis+unix:///path",
            RateLimiter::takes_url,
        );
        let keys = keys(&mut reader);
        let owner = owner(&mut reader);
        let telegram_token = checked(
            &mut reader,
            "TELEGRAM_BOT_TOKEN",
            "a token such as 123456789:AAF… from @BotFather",
            |text| services::well_formed(&text.to_owned().into()).is_ok(),
        );
        let telegram_api_url = reader.parse(
            "TELEGRAM_API_URL",
            "an address such as https://api.telegram.org",
            http_url,
        );
        let openai_url = reader.parse(
            "OPENAI_BASE_URL",
            "an address such as https://api.openai.com/v1, with nothing behind ? or #",
            |text| http_url(text).filter(|_| gateway::OpenAi::takes_url(text)),
        );
        let openai_models = reader.parse(
            "OPENAI_MODEL",
            "models such as gpt-4o-mini,gpt-4o or local@0.10/0.40",
            |text| gateway::parse_models(text).ok(),
        );
        let first_token = Duration::from_secs(reader.number("BOTDECK_FIRST_TOKEN_SECONDS", 1..=600));
        let answer = Duration::from_secs(reader.number("BOTDECK_ANSWER_SECONDS", 1..=3600));
        let workers = usize::try_from(reader.number("BOTDECK_WORKERS", 1..=1024)).unwrap_or(64);
        let bot_workers = usize::try_from(reader.number("BOTDECK_BOT_WORKERS", 1..=1024)).unwrap_or(56);
        let provider_calls = usize::try_from(reader.number("BOTDECK_PROVIDER_CALLS", 1..=100_000)).unwrap_or(512);
        let queue_limit = u32::try_from(reader.number("BOTDECK_QUEUE_LIMIT", 1..=10_000_000)).unwrap_or(20_000);
        let usage_months = u32::try_from(reader.number("BOTDECK_USAGE_MONTHS", 2..=1200)).unwrap_or(13);
        let db_connections = u32::try_from(reader.number("BOTDECK_DB_CONNECTIONS", 2..=500)).unwrap_or(20);
        let late_after = reader.parse(
            "BOTDECK_LATE_AFTER",
            "a whole number of seconds from 1 to 31536000",
            |text| {
                let seconds = text.parse().ok().filter(|seconds| (1..=31_536_000).contains(seconds))?;
                Some(Duration::from_secs(seconds))
            },
        );
        let drafts = reader.parse("BOTDECK_DRAFTS", "auto or off", |text| match text {
            "auto" => Some(true),
            "off" => Some(false),
            _ => None,
        });
        let trust_proxy = reader.parse("BOTDECK_TRUST_PROXY", "true or false", |text| text.parse().ok());
        let log = reader.parse("BOTDECK_LOG", "a filter such as info,bot=debug", |text| {
            tracing_subscriber::EnvFilter::try_new(text)
                .ok()
                .map(|_| text.to_owned())
        });
        let log_format = reader.parse("BOTDECK_LOG_FORMAT", "pretty or json", |text| match text {
            "pretty" => Some(LogFormat::Pretty),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let metrics_token = reader.secret("BOTDECK_METRICS_TOKEN");
        // It becomes a header.
        let openai_key = checked(&mut reader, "OPENAI_API_KEY", "one line of printable ASCII", |text| {
            text.bytes().all(|byte| byte.is_ascii_graphic())
        });
        match (
            addr,
            telegram_api_url,
            openai_url,
            openai_models,
            trust_proxy,
            log,
            log_format,
        ) {
            (
                Some(addr),
                Some(telegram_api_url),
                Some(openai_url),
                Some(openai_models),
                Some(trust_proxy),
                Some(log),
                Some(log_format),
            ) if reader.faults.is_empty() => Ok(Self {
                addr,
                public_url,
                database_url,
                redis_url,
                keys,
                owner,
                telegram_token,
                telegram_api_url: telegram_api_url.as_str().trim_end_matches('/').to_owned(),
                openai_key,
                openai_url: openai_url.as_str().trim_end_matches('/').to_owned(),
                openai_models,
                first_token,
                answer,
                workers,
                bot_workers,
                provider_calls,
                queue_limit,
                usage_months,
                db_connections,
                late_after,
                drafts: drafts.unwrap_or(true),
                trust_proxy,
                metrics_token,
                log,
                log_format,
            }),
            _ => Err(reader.faults),
        }
    }

    /// Cookies may be `Secure`: browsers come by https.
    pub fn https(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    /// Where a person opens the dashboard, if that is not simply where we listen.
    pub fn open_at(&self) -> Option<String> {
        let url = self.public_url.as_ref()?;
        Some(url.as_str().trim_end_matches('/').to_owned())
    }

    /// What a command that works on the database cannot do without.
    pub fn database(&self) -> Option<&SecretString> {
        self.database_url.as_ref()
    }
}

fn checked(reader: &mut Reader<'_>, name: &str, expected: &str, fits: impl Fn(&str) -> bool) -> Option<SecretString> {
    let value = reader.secret(name)?;
    if fits(value.expose_secret()) {
        return Some(value);
    }
    reader.fault(name, expected);
    None
}

/// Both names are one setting, so the first source that has either of them counts.
fn keys(reader: &mut Reader<'_>) -> Option<KeyRing> {
    const NAMES: [&str; 2] = ["BOTDECK_SECRET_KEY", "BOTDECK_SECRET_KEY_FILE"];
    let (name, value) = reader.sources.layers().into_iter().find_map(|layer| {
        let mut names = NAMES.into_iter();
        names.find_map(|name| Some((name, set_in(layer, name)?)))
    })?;
    let text: SecretString = if name == NAMES[0] {
        value.to_owned().into()
    } else {
        match std::fs::read_to_string(value) {
            Ok(text) => text.into(),
            Err(error) => {
                reader.fault(name, format!("a readable file ({error})"));
                return None;
            }
        }
    };
    KeyRing::parse(&text)
        .map_err(|_| reader.fault(name, services::EXPECTED_KEY))
        .ok()
}

fn owner(reader: &mut Reader<'_>) -> Option<(Email, SecretString)> {
    let email = reader.parse(
        "BOTDECK_OWNER_EMAIL",
        "an e-mail address such as ann@example.org",
        |text| text.parse().ok(),
    );
    let password = checked(reader, "BOTDECK_OWNER_PASSWORD", "10 to 200 characters", |text| {
        text.parse::<Password>().is_ok()
    });
    match (email, password, reader.sources.get("BOTDECK_OWNER_EMAIL").is_some()) {
        (Some(email), Some(password), _) => Some((email, password)),
        (Some(_), None, _) if reader.sources.get("BOTDECK_OWNER_PASSWORD").is_none() => {
            reader.fault("BOTDECK_OWNER_PASSWORD", "a password to go with BOTDECK_OWNER_EMAIL");
            None
        }
        (None, Some(_), false) => {
            reader.fault("BOTDECK_OWNER_EMAIL", "an address to go with BOTDECK_OWNER_PASSWORD");
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(environment: &[(&str, &str)]) -> Sources {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Sources {
            environment: pairs(environment),
            ..Sources::default()
        }
    }

    #[test]
    fn nothing_set_is_a_working_start() {
        let settings = Settings::parse(&Sources::default(), Vec::new()).unwrap();
        assert_eq!(settings.addr.port(), 3000);
        assert!(settings.openai_key.is_none() && settings.database_url.is_none());
    }

    #[test]
    fn all_faults_come_together_and_no_secret_is_shown() {
        let sources = sources(&[
            ("BOTDECK_ADDR", "nowhere"),
            ("DATABASE_URL", "mysql://root:hunter2@db"),
            ("BOTDECK_SECRET_KEY", "hunter2"),
            ("TELEGRAM_BOT_TOKEN", "hunter2"),
            ("OPENAI_BASE_URL", "ftp://x"),
            ("BOTDECK_WORKERS", "0"),
            ("BOTDECK_OWNER_EMAIL", "ann@example.org"),
        ]);
        let faults = Settings::parse(&sources, Vec::new()).unwrap_err();
        let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
        for name in [
            "BOTDECK_ADDR",
            "DATABASE_URL",
            "BOTDECK_SECRET_KEY",
            "TELEGRAM_BOT_TOKEN",
            "OPENAI_BASE_URL",
            "BOTDECK_WORKERS",
            "BOTDECK_OWNER_PASSWORD",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        let shown: String = faults.iter().map(ToString::to_string).collect();
        assert!(!shown.contains("hunter2"));
        assert!(shown.contains("nowhere"));
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let mut sources = sources(&[("BOTDECK_ADDR", "127.0.0.1:2")]);
        sources.file.insert("BOTDECK_ADDR".into(), "127.0.0.1:3".into());
        sources.file.insert("BOTDECK_WORKERS".into(), "7".into());
        let settings = Settings::parse(&sources, Vec::new()).unwrap();
        assert_eq!((settings.addr.port(), settings.workers), (2, 7));
        sources.flags.insert("BOTDECK_ADDR".into(), "127.0.0.1:1".into());
        assert_eq!(Settings::parse(&sources, Vec::new()).unwrap().addr.port(), 1);
    }

    #[test]
    fn an_empty_variable_hides_nothing() {
        let mut sources = sources(&[("BOTDECK_WORKERS", "")]);
        sources.file.insert("BOTDECK_WORKERS".into(), "7".into());
        assert_eq!(Settings::parse(&sources, Vec::new()).unwrap().workers, 7);
    }

    #[test]
    fn what_is_half_right_is_a_fault_too() {
        for (name, value) in [
            ("TELEGRAM_BOT_TOKEN", "123456:AAF-token # the bot of the shop"),
            ("DATABASE_URL", "postgres://app@db:port/app"),
            ("DATABASE_URL", "postgres://app@db/app?sslmode=perhaps"),
            ("REDIS_URL", "redis://"),
            ("REDIS_URL", "redis://cache:port"),
            ("REDIS_URL", "http://cache:6379"),
            (
                "OPENAI_BASE_URL",
                "https://models.example.org/v1?api-version=2024-10-21",
            ),
        ] {
            let faults = Settings::parse(&sources(&[(name, value)]), Vec::new()).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].name, name);
        }
        for (name, value) in [
            (
                "DATABASE_URL",
                "postgres://botdeck@localhost/botdeck?host=/run/botdeck-0-1",
            ),
            ("DATABASE_URL", "postgresql://app:pass@db:5432/app?sslmode=require"),
            ("REDIS_URL", "redis+unix:///run/botdeck-0-1/redis.sock"),
            ("REDIS_URL", "redis://:pass@cache:6379/1"),
            ("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1/"),
        ] {
            let parsed = Settings::parse(&sources(&[(name, value)]), Vec::new());
            assert!(parsed.is_ok(), "{name}={value}: {:?}", parsed.err());
        }
    }

    #[test]
    fn secrets_in_addresses_are_not_shown() {
        for address in [
            "ftp://ann:hunter2@host/v1",
            "ann:hunter2@host/v1",
            "ann:hun?ter2@host/v1",
            "https://host/v1?key=hunter2",
            "host/v1#hunter2",
        ] {
            let faults = Settings::parse(&sources(&[("OPENAI_BASE_URL", address)]), Vec::new()).unwrap_err();
            let shown = faults[0].to_string();
            assert!(!shown.contains("hun") && shown.contains("host/v1"), "{shown}");
        }
        let key = KeyRing::generate();
        let faults = Settings::parse(
            &sources(&[("BOTDECK_SECRET_KEY_FILE", key.expose_secret())]),
            Vec::new(),
        );
        let shown = faults.unwrap_err()[0].to_string();
        assert!(
            shown.contains("BOTDECK_SECRET_KEY_FILE") && !shown.contains(key.expose_secret()),
            "{shown}"
        );
    }

    #[test]
    fn the_key_and_its_file_are_one_setting() {
        let (in_file, other) = (KeyRing::generate(), KeyRing::generate());
        let id = |key: &SecretString| KeyRing::parse(key).unwrap().current_id().to_owned();
        let path = std::env::temp_dir().join(format!("botdeck-keys-{}", std::process::id()));
        // A list, one a line: the current key first.
        let list = format!("{}\n{}\n", in_file.expose_secret(), other.expose_secret());
        std::fs::write(&path, list).unwrap();
        let mut sources = sources(&[
            ("BOTDECK_SECRET_KEY", ""),
            ("BOTDECK_SECRET_KEY_FILE", &path.display().to_string()),
        ]);
        sources
            .file
            .insert("BOTDECK_SECRET_KEY".into(), other.expose_secret().to_owned());
        let used = |sources: &Sources| {
            let settings = Settings::parse(sources, Vec::new()).unwrap();
            settings.keys.unwrap().current_id().to_owned()
        };
        assert_eq!(
            used(&sources),
            id(&in_file),
            "the environment's file wins over the key in the file"
        );
        sources
            .flags
            .insert("BOTDECK_SECRET_KEY".into(), other.expose_secret().to_owned());
        assert_eq!(used(&sources), id(&other));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_falls_back_hides_nothing() {
        let mut sources = sources(&[("REDIS_URL", "")]);
        sources.file.insert("DATABASE_URL".into(), "postgres://mine/x".into());
        sources.file.insert("REDIS_URL".into(), " ".into());
        for name in ["DATABASE_URL", "REDIS_URL"] {
            sources.fall_back(name, "redis+unix:///private");
        }
        assert_eq!(sources.get("DATABASE_URL"), Some("postgres://mine/x"));
        assert_eq!(sources.get("REDIS_URL"), Some("redis+unix:///private"));
    }

    #[test]
    fn a_password_is_taken_as_it_is_typed() {
        let sources = sources(&[
            ("BOTDECK_OWNER_EMAIL", " ann@example.org "),
            ("BOTDECK_OWNER_PASSWORD", " correct horse \n"),
        ]);
        let (_, password) = Settings::parse(&sources, Vec::new()).unwrap().owner.unwrap();
        assert_eq!(password.expose_secret(), " correct horse ");
    }

    #[test]
    fn a_misspelt_setting_is_a_fault() {
        let mut sources = Sources::default();
        sources.file.insert("BOTDECK_ADRESS".into(), "x".into());
        assert_eq!(
            Settings::parse(&sources, Vec::new()).unwrap_err()[0].name,
            "BOTDECK_ADRESS"
        );
    }
}
