//! The table of all settings: names, defaults, and what they are for.

/// A setting: its name, whether its value may be shown, and what it is for.
pub struct Known {
    pub name: &'static str,
    pub secret: bool,
    pub default: &'static str,
    pub about: &'static str,
}

const fn known(name: &'static str, secret: bool, default: &'static str, about: &'static str) -> Known {
    Known {
        name,
        secret,
        default,
        about,
    }
}

/// Every setting there is. Another name in a flag or the file is a mistake, and reported as one; not in the environment, where others
/// put names too (Kubernetes makes `BOTDECK_PORT` of a service called botdeck).
pub const KNOWN: &[Known] = &[
    known("BOTDECK_ADDR", false, "127.0.0.1:3000", "address and port to listen on"),
    known(
        "BOTDECK_PUBLIC_URL",
        false,
        "",
        "how browsers and Telegram reach it, such as https://deck.example.org; unset: polling",
    ),
    known("DATABASE_URL", true, "", "postgres://…"),
    known(
        "REDIS_URL",
        true,
        "",
        "redis://…; without it limits per minute are counted locally",
    ),
    known(
        "BOTDECK_SECRET_KEY",
        true,
        "",
        "master key: 32 random bytes in base64; several, the current one first, for rotation",
    ),
    // No secret, unless somebody puts the key itself here.
    known("BOTDECK_SECRET_KEY_FILE", true, "", "a file that holds it"),
    known(
        "BOTDECK_OWNER_EMAIL",
        false,
        "",
        "first owner; without it a one-time link is printed",
    ),
    known(
        "BOTDECK_OWNER_PASSWORD",
        true,
        "",
        "first owner's password, 10 characters or more",
    ),
    known("TELEGRAM_BOT_TOKEN", true, "", "first bot, from @BotFather"),
    known(
        "TELEGRAM_API_URL",
        false,
        "https://api.telegram.org",
        "another Bot API server",
    ),
    known(
        "OPENAI_API_KEY",
        true,
        "",
        "first provider's key; without it the built-in demo model answers",
    ),
    known(
        "OPENAI_BASE_URL",
        false,
        "https://api.openai.com/v1",
        "any OpenAI-compatible server",
    ),
    known(
        "OPENAI_MODEL",
        false,
        "gpt-4o-mini",
        "models, the default one first: a,b or a@IN/OUT with dollars per million tokens",
    ),
    known(
        "BOTDECK_FIRST_TOKEN_SECONDS",
        false,
        "20",
        "longest wait for the first token of an answer",
    ),
    known(
        "BOTDECK_ANSWER_SECONDS",
        false,
        "120",
        "longest time an answer may take",
    ),
    known("BOTDECK_WORKERS", false, "64", "jobs at once in this process"),
    known(
        "BOTDECK_BOT_WORKERS",
        false,
        "56",
        "of these, jobs of one bot at once, so that one whose model hangs leaves hands for the others",
    ),
    known(
        "BOTDECK_PROVIDER_CALLS",
        false,
        "512",
        "requests to a provider of models at once, of all processes together; those beyond wait",
    ),
    known(
        "BOTDECK_QUEUE_LIMIT",
        false,
        "20000",
        "jobs of one bot from which on its further updates are left with Telegram until fewer wait",
    ),
    known(
        "BOTDECK_USAGE_MONTHS",
        false,
        "13",
        "months of the ledger that are kept beside the current one; sums by day stay",
    ),
    known(
        "BOTDECK_DB_CONNECTIONS",
        false,
        "20",
        "connections to Postgres of this process",
    ),
    known(
        "BOTDECK_LATE_AFTER",
        false,
        "",
        "seconds after which a waiting text gets no answer of its own: the late ones of a chat get one notice; unset: all are answered",
    ),
    known(
        "BOTDECK_DRAFTS",
        false,
        "auto",
        "auto: answers grow as drafts in private chats where Telegram takes them; off: as messages that are edited",
    ),
    known(
        "BOTDECK_TRUST_PROXY",
        false,
        "false",
        "take the client's address from X-Forwarded-For (its last entry)",
    ),
    known(
        "BOTDECK_METRICS_TOKEN",
        true,
        "",
        "bearer token that /metrics asks for; unset: open",
    ),
    known("BOTDECK_LOG", false, "info", "what is logged, such as info,bot=debug"),
    known("BOTDECK_LOG_FORMAT", false, "pretty", "pretty or json"),
];
