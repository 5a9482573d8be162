//! What the dashboard says, in every language it speaks, and how it writes figures.
//!
//! The language is chosen by the server (cookie, then `Accept-Language`) and holds for a whole document: changing it loads a new
//! one. So texts are plain constants, no signals. One table (`table.rs`) holds a row per sentence with all its languages: a
//! missing translation does not compile.

mod phrases;
mod table;

use domain::{
    ApiScope, ErrorCode, Lang, Lifetime, LimitKind, Measure, Money, Past, Permission, Role, Scope,
    views::{
        UserStatus,
        api_keys::{KeyOrder, KeyStates},
        jobs::JobList,
        requests::Outcome,
    },
};
use leptos::prelude::*;

pub use table::Texts;

/// The texts of `lang`, for every component below.
pub fn provide_texts(lang: Lang) {
    provide_context(texts(lang));
}

pub fn texts(lang: Lang) -> &'static Texts {
    match lang {
        Lang::En => &table::EN,
        Lang::Ru => &table::RU,
    }
}

pub fn use_texts() -> &'static Texts {
    use_context().unwrap_or(&table::EN)
}

/// Puts `parts` into the places marked `{}`, in order.
pub fn fill(template: &str, parts: &[&str]) -> String {
    let mut text = String::with_capacity(template.len() + 32);
    let mut pieces = template.split("{}");
    text.push_str(pieces.next().unwrap_or_default());
    for (index, piece) in pieces.enumerate() {
        text.push_str(parts.get(index).copied().unwrap_or_default());
        text.push_str(piece);
    }
    text
}

/// `12 481`: thousands apart by a narrow space that does not break.
pub fn group(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + 8);
    if number < 0 {
        text.push('−');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Money with its thousands apart: `$12 481.20`.
pub fn money(money: Money) -> String {
    let shown = money.to_string();
    let (sign, digits) = shown.split_once('$').unwrap_or(("", &shown));
    let (whole, cents) = digits.split_once('.').unwrap_or((digits, ""));
    match whole.parse() {
        Ok(whole) => format!("{sign}${}.{cents}", group(whole)),
        Err(_) => shown,
    }
}

/// `0.075`: to the last digit that says something, as prices are typed.
pub fn dollars(money: Money) -> String {
    let text = money.to_decimal(9);
    let short = text.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

/// An amount in the unit of its limit.
pub fn amount(kind: LimitKind, value: i64) -> String {
    match kind.measure() {
        Measure::Money => money(Money::from_nanos(value)),
        Measure::Messages | Measure::Tokens | Measure::Images => group(value),
    }
}

/// `640 ms`, `2.1 s`, `3 min`, `5 h`: as exact as one wants to know it.
pub fn duration(t: &Texts, ms: i64) -> String {
    let point = |tenths: i64| format!("{}{}{}", tenths / 10, t.decimal_point, tenths % 10);
    match ms {
        ..1000 => format!("{ms}\u{a0}{}", t.ms),
        1000..60_000 => format!("{}\u{a0}{}", point((ms + 50) / 100), t.s),
        60_000..3_600_000 => format!("{}\u{a0}{}", ms / 60_000, t.min),
        _ => format!("{}\u{a0}{}", ms / 3_600_000, t.h),
    }
}

/// Which form of a noun stands after a number: one, few, many. English knows only the first and the last.
fn plural(lang: Lang, n: i64, forms: [&'static str; 3]) -> &'static str {
    let [one, few, many] = forms;
    let n = n.unsigned_abs();
    match lang {
        Lang::En if n == 1 => one,
        Lang::En => many,
        Lang::Ru => match (n % 10, n % 100) {
            (_, 11..=14) => many,
            (1, _) => one,
            (2..=4, _) => few,
            _ => many,
        },
    }
}

/// A phrase with a capital and a full stop.
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first = letters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    let stop = if phrase.ends_with(['.', '!', '?', '…']) {
        ""
    } else {
        "."
    };
    format!("{first}{}{stop}", letters.as_str())
}

impl Texts {
    fn pick(&self, en: &'static str, ru: &'static str) -> &'static str {
        match self.lang {
            Lang::En => en,
            Lang::Ru => ru,
        }
    }

    pub fn messages(&self, n: i64) -> &'static str {
        let forms = match self.lang {
            Lang::En => ["message", "messages", "messages"],
            Lang::Ru => ["сообщение", "сообщения", "сообщений"],
        };
        plural(self.lang, n, forms)
    }

    pub fn users(&self, n: i64) -> &'static str {
        let forms = match self.lang {
            Lang::En => ["user", "users", "users"],
            Lang::Ru => ["пользователь", "пользователя", "пользователей"],
        };
        plural(self.lang, n, forms)
    }

    pub fn tokens(&self, n: i64) -> &'static str {
        let forms = match self.lang {
            Lang::En => ["token", "tokens", "tokens"],
            Lang::Ru => ["токен", "токена", "токенов"],
        };
        plural(self.lang, n, forms)
    }

    pub fn jobs(&self, n: i64) -> &'static str {
        let forms = match self.lang {
            Lang::En => ["job", "jobs", "jobs"],
            Lang::Ru => ["задача", "задачи", "задач"],
        };
        plural(self.lang, n, forms)
    }

    pub fn job_list(&self, list: JobList) -> &'static str {
        match list {
            JobList::Dead => self.pick("Dead letters", "Не удались"),
            JobList::Retrying => self.pick("Retrying", "Повторяются"),
            JobList::Running => self.pick("Running", "Выполняются"),
            JobList::Waiting => self.pick("Waiting", "Ждут"),
            JobList::Discarded => self.pick("Discarded", "Отклонены"),
        }
    }

    /// Title and hint of a list with nothing in it.
    pub fn jobs_none(&self, list: JobList) -> (&'static str, &'static str) {
        match list {
            JobList::Dead => (
                self.pick("No dead letters", "Всё обработано"),
                self.pick(
                    "A job that fails for good is kept here until somebody decides.",
                    "Задача, которая не удалась окончательно, ждёт здесь решения.",
                ),
            ),
            JobList::Retrying => (
                self.pick("Nothing is being retried", "Повторов нет"),
                self.pick(
                    "A job that fails is tried again by itself, with growing pauses.",
                    "Неудавшаяся задача повторяется сама, со всё большими паузами.",
                ),
            ),
            JobList::Running => (
                self.pick("Nothing is running", "Ничего не выполняется"),
                self.pick("Workers are free.", "Исполнители свободны."),
            ),
            JobList::Waiting => (
                self.pick("Nothing waits", "Ничего не ждёт"),
                self.pick(
                    "Every message has been taken up.",
                    "Каждое сообщение уже взято в работу.",
                ),
            ),
            JobList::Discarded => (
                self.pick("Nothing was discarded", "Ничего не отклонено"),
                self.pick(
                    "Discarded jobs stay here for 30 days.",
                    "Отклонённые задачи видны здесь 30 дней.",
                ),
            ),
        }
    }

    /// What a job works on; `None` for a kind of update that this version does not know.
    pub fn job_kind(&self, kind: &str) -> Option<&'static str> {
        Some(match kind {
            "message" => self.pick("Message", "Сообщение"),
            "edited_message" => self.pick("Edited message", "Правка сообщения"),
            "callback_query" => self.pick("Button", "Кнопка"),
            "my_chat_member" => self.pick("Membership", "Членство в чате"),
            "stopped_message_generation" => self.pick("Stop button", "Кнопка «стоп»"),
            _ => return None,
        })
    }

    /// The other language, and the words on the switch to it, in that language.
    pub fn other_language(&self) -> (Lang, &'static str) {
        match self.lang {
            Lang::En => (Lang::Ru, "Русский"),
            Lang::Ru => (Lang::En, "English"),
        }
    }

    pub fn role(&self, role: Role) -> &'static str {
        match role {
            Role::Owner => self.pick("Owner", "Владелец"),
            Role::Admin => self.pick("Administrator", "Администратор"),
            Role::Support => self.pick("Support", "Поддержка"),
            Role::Viewer => self.pick("Viewer", "Наблюдатель"),
        }
    }

    pub fn user_status(&self, status: UserStatus) -> &'static str {
        match status {
            UserStatus::Any => self.pick("Any", "Любой"),
            UserStatus::Active => self.active,
            UserStatus::Blocked => self.blocked,
        }
    }

    pub fn api_scope(&self, scope: ApiScope) -> &'static str {
        match scope {
            ApiScope::Chat => self.pick("Chat and responses", "Чат и responses"),
            ApiScope::Embeddings => self.pick("Embeddings", "Эмбеддинги"),
            ApiScope::Images => self.pick("Images", "Картинки"),
            ApiScope::Audio => self.pick("Audio", "Звук"),
            ApiScope::Models => self.pick("List of models", "Список моделей"),
        }
    }

    pub fn lifetime(&self, lifetime: Lifetime) -> &'static str {
        match lifetime {
            Lifetime::Month => self.pick("30 days", "30 дней"),
            Lifetime::Quarter => self.pick("90 days", "90 дней"),
            Lifetime::Year => self.pick("A year", "Год"),
            Lifetime::Forever => self.pick("No end", "Бессрочно"),
        }
    }

    pub fn outcome(&self, outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Any => self.pick("Any", "Любой"),
            Outcome::Good => self.pick("Answered", "С ответом"),
            Outcome::Failed => self.pick("Failed", "С ошибкой"),
        }
    }

    pub fn key_states(&self, states: KeyStates) -> &'static str {
        match states {
            KeyStates::Any => self.pick("Any", "Любое"),
            KeyStates::Active => self.pick("Good", "Действует"),
            KeyStates::Expiring => self.pick("Ends within 7 days", "Истечёт за 7 дней"),
            KeyStates::Expired => self.pick("Expired", "Истёк"),
            KeyStates::Revoked => self.pick("Revoked", "Отозван"),
        }
    }

    pub fn key_order(&self, order: KeyOrder) -> &'static str {
        match order {
            KeyOrder::Created => self.pick("Newest first", "Сначала новые"),
            KeyOrder::Name => self.pick("Name", "По имени"),
            KeyOrder::Used => self.pick("Last used", "По использованию"),
        }
    }

    pub fn past(&self, past: Past) -> &'static str {
        match past {
            Past::All => self.pick("All time", "Всё время"),
            Past::Hour => self.pick("Last hour", "Последний час"),
            Past::Day => self.pick("24 hours", "24 часа"),
            Past::Week => self.pick("7 days", "7 дней"),
            Past::Month => self.pick("30 days", "30 дней"),
        }
    }

    /// How an answer ended; `None` for a word of a provider that this version does not know.
    pub fn finish(&self, finish: &str) -> Option<&'static str> {
        Some(match finish {
            "stop" => self.pick("To its end", "До конца"),
            "length" => self.pick("Longest allowed", "Предел длины"),
            "content_filter" => self.pick("Content filter", "Фильтр провайдера"),
            "tool_calls" => self.pick("Tool call", "Вызов инструмента"),
            "stopped" => self.pick("Stopped by the asker", "Остановлен"),
            "cut" => self.pick("Broke off", "Оборвался"),
            "failed" => self.pick("Failed", "Не удался"),
            "gone" => self.pick("Caller left", "Клиент ушёл"),
            _ => return None,
        })
    }

    pub fn limit(&self, kind: LimitKind) -> &'static str {
        match kind {
            LimitKind::MessagesPerMinute => self.pick("Messages per minute", "Сообщений в минуту"),
            LimitKind::MessagesPerDay => self.pick("Messages per day", "Сообщений в день"),
            LimitKind::MessagesPerMonth => self.pick("Messages per month", "Сообщений в месяц"),
            LimitKind::MessagesTotal => self.pick("Messages in all", "Сообщений всего"),
            LimitKind::TokensPerMinute => self.pick("Tokens per minute", "Токенов в минуту"),
            LimitKind::TokensPerDay => self.pick("Tokens per day", "Токенов в день"),
            LimitKind::TokensPerMonth => self.pick("Tokens per month", "Токенов в месяц"),
            LimitKind::TokensTotal => self.pick("Tokens in all", "Токенов всего"),
            LimitKind::MoneyPerMinute => self.pick("Dollars per minute", "Долларов в минуту"),
            LimitKind::MoneyPerDay => self.pick("Dollars per day", "Долларов в день"),
            LimitKind::MoneyPerMonth => self.pick("Dollars per month", "Долларов в месяц"),
            LimitKind::MoneyTotal => self.pick("Dollars in all", "Долларов всего"),
            LimitKind::ImagesPerMinute => self.pick("Images per minute", "Картинок в минуту"),
            LimitKind::ImagesPerDay => self.pick("Images per day", "Картинок в день"),
            LimitKind::ImagesPerMonth => self.pick("Images per month", "Картинок в месяц"),
            LimitKind::ImagesTotal => self.pick("Images in all", "Картинок всего"),
        }
    }

    /// Whose use a limit counts.
    pub fn scope(&self, scope: Scope) -> &'static str {
        match scope {
            Scope::User => self.pick("User", "Пользователь"),
            Scope::ApiKey => self.pick("API key", "Ключ API"),
            Scope::Bot => self.pick("Bot", "Бот"),
            Scope::Model => self.pick("Model", "Модель"),
            Scope::Deployment => self.pick("The whole deck", "Вся панель"),
        }
    }

    /// What an error code means, in a sentence.
    pub fn error(&self, code: ErrorCode) -> &'static str {
        use ErrorCode as E;
        match code {
            E::LimitMinute => self.pick(
                "Messages of this minute are used up.",
                "Сообщения этой минуты исчерпаны.",
            ),
            E::LimitDay => self.pick("Messages of the day are used up.", "Сообщения на день исчерпаны."),
            E::LimitMonth => self.pick("Messages of the month are used up.", "Сообщения на месяц исчерпаны."),
            E::LimitTokens => self.pick("Tokens are used up for now.", "Токены пока исчерпаны."),
            E::LimitMoney => self.pick("Money is used up for now.", "Деньги пока исчерпаны."),
            E::LimitImages => self.pick("Images are used up for now.", "Картинки пока исчерпаны."),
            E::LimitTotal => self.pick("What may be used in all is used up.", "Общий лимит исчерпан."),
            E::LimitKey => self.pick("A limit of the API key is used up.", "Лимит ключа API исчерпан."),
            E::LimitBot => self.pick("A limit of the bot is used up.", "Лимит бота исчерпан."),
            E::LimitModel => self.pick("A limit of the model is used up.", "Лимит модели исчерпан."),
            E::LimitDeck => self.pick("A limit of the whole deck is used up.", "Лимит всей панели исчерпан."),
            E::AiTimeout => self.pick("The model did not answer in time.", "Модель не ответила вовремя."),
            E::AiBusy => self.pick(
                "The provider is over its own limit.",
                "Провайдер превысил собственный лимит.",
            ),
            E::AiAuth => self.pick(
                "The provider refused our key or account.",
                "Провайдер не принял наш ключ или аккаунт.",
            ),
            E::AiRefused => self.pick("The provider refused the request.", "Провайдер отклонил запрос."),
            E::AiContext => self.pick(
                "The conversation is longer than the provider's context.",
                "Разговор длиннее, чем вмещает контекст провайдера.",
            ),
            E::AiEmpty => self.pick("The provider gave an empty answer.", "Провайдер дал пустой ответ."),
            E::AiDown => self.pick("The provider failed.", "У провайдера сбой."),
            E::AiCut => self.pick("The answer broke off midway.", "Ответ оборвался на середине."),
            E::TooLong => self.pick(
                "The message is longer than the model can take.",
                "Сообщение длиннее, чем вмещает модель.",
            ),
            E::Blocked => self.pick("This user is blocked.", "Этот пользователь заблокирован."),
            E::NoModel => self.pick("There is no such model.", "Такой модели нет."),
            E::Invalid => self.pick("This cannot be taken as it is.", "Так принять нельзя."),
            E::SignedOut => self.pick("You are signed out. Please sign in again.", "Вы вышли. Войдите снова."),
            E::BadLogin => self.pick("E-mail or password is wrong.", "Почта или пароль неверны."),
            E::Throttled => self.pick("Too many attempts. Please wait.", "Слишком много попыток. Подождите."),
            E::Forbidden => self.pick(
                "Your role does not include this. Ask an owner if you need it.",
                "Ваша роль этого не позволяет. Если нужно, обратитесь к владельцу.",
            ),
            E::NotFound => self.pick(
                "There is nothing at this address, or it is gone.",
                "По этому адресу ничего нет, или оно удалено.",
            ),
            E::Conflict => self.pick(
                "It exists already, or somebody changed it first.",
                "Такое уже есть, или это успели изменить раньше.",
            ),
            E::Telegram => self.pick(
                "Telegram refused or did not answer.",
                "Telegram отказал или не ответил.",
            ),
            E::Origin => self.pick(
                "The request did not come from this dashboard.",
                "Запрос пришёл не из этой панели.",
            ),
            E::Internal => self.pick(
                "Something failed on our side. The cause is in the log.",
                "Сбой на нашей стороне. Причина записана в журнал.",
            ),
        }
    }

    /// The same for a code that was stored as text; `None` for one this version does not know.
    pub fn error_by_name(&self, code: &str) -> Option<&'static str> {
        let code = ErrorCode::ALL.iter().copied().find(|known| known.as_str() == code)?;
        Some(self.error(code))
    }

    /// What the server added to a failure: what was expected, how long to wait, which scope is missing. A failure may come back in
    /// an address (a form sent without script), so anybody can write one: only what the server does say is shown.
    pub fn detail(&self, code: ErrorCode, detail: &str) -> Option<String> {
        match code {
            ErrorCode::Invalid => Some(fill(self.detail_expected, &[self.expectation(detail)?])),
            ErrorCode::Throttled => {
                let seconds = detail.strip_suffix(" s")?.parse().ok()?;
                Some(fill(self.detail_wait, &[&self.wait(seconds)]))
            }
            ErrorCode::Forbidden => {
                let missing = Permission::ALL.iter().find(|permission| permission.scope() == detail)?;
                Some(fill(self.detail_scope, &[missing.scope()]))
            }
            ErrorCode::Telegram => Some(fill(self.detail_telegram, &[&self.telegram(detail)?.0])),
            _ => Some(sentence(self.expectation(detail)?)),
        }
    }

    /// A time to wait, in whole seconds or minutes.
    fn wait(&self, seconds: u32) -> String {
        match seconds {
            ..60 => format!("{seconds}\u{a0}{}", self.s),
            _ => format!("{}\u{a0}{}", seconds.div_ceil(60), self.min),
        }
    }

    /// One of the phrases with which services and values refuse, in this language.
    fn expectation(&self, phrase: &str) -> Option<&'static str> {
        let (en, ru) = phrases::EXPECTATIONS.iter().find(|(en, _)| *en == phrase)?;
        Some(self.pick(en, ru))
    }

    /// Why Telegram is not reached or does not do as it is told, and what else was noted of it, in the words of others.
    fn telegram<'a>(&self, text: &'a str) -> Option<(String, Option<&'a str>)> {
        phrases::TELEGRAM.iter().find_map(|(en, ru)| {
            let words = self.pick(en, ru);
            if let Some((before, after)) = en.split_once("{}") {
                let number: u32 = text.strip_prefix(before)?.strip_suffix(after)?.parse().ok()?;
                return Some((fill(words, &[&number.to_string()]), None));
            }
            match text.strip_prefix(en)? {
                "" => Some((words.to_owned(), None)),
                rest => Some((words.to_owned(), Some(rest.strip_prefix(": ")?))),
            }
        })
    }

    /// Why a bot does not run, as it was stored. What this version has no words for is shown as it is.
    pub fn fault(&self, fault: &str) -> String {
        match self.telegram(fault) {
            Some((words, None)) => words,
            Some((words, Some(rest))) => format!("{words}: {rest}"),
            None => fault.to_owned(),
        }
    }

    /// Words for an action of the audit trail; `None` for one this version does not know.
    pub fn action(&self, action: &str) -> Option<&'static str> {
        Some(match action {
            "user.block" => self.pick("Blocked a user", "Заблокировал пользователя"),
            "user.unblock" => self.pick("Unblocked a user", "Разблокировал пользователя"),
            "user.boost" => self.pick("Changed a user's boost", "Изменил прибавку пользователя"),
            "user.reset_limit" => self.pick("Began a user's limit anew", "Начал лимит пользователя заново"),
            "limits.boost" => self.pick("Changed the boost of a limit", "Изменил прибавку к лимиту"),
            "limits.reset" => self.pick("Began a limit anew", "Начал лимит заново"),
            "limits.set" => self.pick("Set limits", "Задал лимиты"),
            "user.plan" => self.pick("Changed a user's plan", "Сменил тариф пользователя"),
            "conversation.read" => self.pick("Read a conversation", "Прочитал переписку"),
            "plan.create" => self.pick("Created a plan", "Создал тариф"),
            "plan.models" => self.pick("Changed the models of a plan", "Изменил модели тарифа"),
            "plan.limits" => self.pick("Changed limits", "Изменил лимиты"),
            "api_key.create" => self.pick("Made an API key", "Создал ключ API"),
            "api_key.revoke" => self.pick("Revoked an API key", "Отозвал ключ API"),
            "bot.replace_token" => self.pick("Replaced a bot's token", "Заменил токен бота"),
            "bot.add" => self.pick("Added a bot", "Добавил бота"),
            "bot.cache" => self.pick(
                "Changed which answers a bot gives again",
                "Изменил повторные ответы бота",
            ),
            "bot.edit" => self.pick("Changed a bot's persona or model", "Изменил характер или модель бота"),
            "bot.mode" => self.pick("Changed how a bot's messages come in", "Сменил способ приёма у бота"),
            "bot.restart" => self.pick("Had a bot try again", "Велел боту попробовать снова"),
            "job.retry" => self.pick("Put a job back", "Вернул задачу в очередь"),
            "job.discard" => self.pick("Discarded a job", "Отклонил задачу"),
            "bot.start" => self.pick("Started a bot", "Запустил бота"),
            "bot.stop" => self.pick("Stopped a bot", "Остановил бота"),
            "provider.add" => self.pick("Added a provider", "Добавил провайдера"),
            "provider.edit" => self.pick("Changed a provider", "Изменил провайдера"),
            "provider.remove" => self.pick("Removed a provider", "Убрал провайдера"),
            "provider.add_key" => self.pick("Added a provider's key", "Добавил ключ провайдера"),
            "provider.remove_key" => self.pick("Removed a provider's key", "Убрал ключ провайдера"),
            "model.add" => self.pick("Added a model", "Добавил модель"),
            "model.edit" => self.pick("Changed a model or its price", "Изменил модель или её цену"),
            "model.remove" => self.pick("Removed a model", "Убрал модель"),
            "alias.add" => self.pick("Made a model's name", "Создал имя модели"),
            "alias.edit" => self.pick("Changed where a model's name leads", "Изменил, куда ведёт имя модели"),
            "alias.order" => self.pick("Changed the order of models", "Изменил порядок моделей"),
            "alias.remove" => self.pick("Removed a model's name", "Убрал имя модели"),
            "requests.export" => self.pick("Exported the log of requests", "Выгрузил журнал запросов"),
            "staff.sign_in" => self.pick("Signed in", "Вошёл"),
            "staff.sign_in_failed" => self.pick("Failed to sign in", "Не смог войти"),
            "staff.sign_out" => self.pick("Signed out", "Вышел"),
            "staff.create" => self.pick("Created a staff account", "Создал учётную запись"),
            "staff.reset_password" => self.pick("Reset a password", "Сменил пароль"),
            _ => return None,
        })
    }

    /// What an audit row is about; `None` for a kind this version does not know.
    pub fn target_kind(&self, kind: &str) -> Option<&'static str> {
        Some(match kind {
            "user" => self.pick("user", "пользователь"),
            "conversation" => self.pick("conversation", "переписка"),
            "plan" => self.pick("plan", "тариф"),
            "bot" => self.pick("bot", "бот"),
            "api_key" => self.pick("API key", "ключ API"),
            "deployment" => self.pick("the whole deck", "вся панель"),
            "job" => self.pick("job", "задача"),
            "provider" => self.pick("provider", "провайдер"),
            "model" => self.pick("model", "модель"),
            "alias" => self.pick("model's name", "имя модели"),
            "requests" => self.pick("log of requests", "журнал запросов"),
            "staff" => self.pick("staff", "сотрудник"),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn russian_nouns_follow_their_numbers() {
        let t = texts(Lang::Ru);
        let shown = [1, 2, 5, 11, 12, 14, 21, 22, 25, 101, 111, 0].map(|n| t.messages(n));
        let (one, few, many) = ("сообщение", "сообщения", "сообщений");
        assert_eq!(
            shown,
            [one, few, many, many, many, many, one, few, many, one, many, many]
        );
        assert_eq!(texts(Lang::En).messages(1), "message");
        assert_eq!(texts(Lang::En).messages(0), "messages");
    }

    #[test]
    fn figures_are_grouped() {
        assert_eq!(group(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(group(999), "999");
        assert_eq!(group(-1000), "−1\u{202f}000");
        assert_eq!(money(Money::from_nanos(12_481_200_000_000)), "$12\u{202f}481.20");
        assert_eq!(money(Money::from_nanos(4_200_000)), "$0.0042");
        assert_eq!(duration(texts(Lang::En), 2_140), "2.1\u{a0}s");
        assert_eq!(duration(texts(Lang::Ru), 2_140), "2,1\u{a0}с");
    }

    #[test]
    fn only_what_the_server_says_is_shown_as_a_detail() {
        let (en, ru) = (texts(Lang::En), texts(Lang::Ru));
        for (code, detail, in_english, in_russian) in [
            (
                ErrorCode::Throttled,
                "900 s",
                "Next attempt in 15\u{a0}min.",
                "Следующая попытка через 15\u{a0}мин.",
            ),
            (
                ErrorCode::Throttled,
                "8 s",
                "Next attempt in 8\u{a0}s.",
                "Следующая попытка через 8\u{a0}с.",
            ),
            (
                ErrorCode::Forbidden,
                "audit:read",
                "Missing scope: audit:read",
                "Не хватает права: audit:read",
            ),
            (
                ErrorCode::Conflict,
                "the user is not blocked",
                "The user is not blocked.",
                "Пользователь не заблокирован.",
            ),
            (
                ErrorCode::Telegram,
                "the Bot API answers with status 502",
                "Telegram says: the Bot API answers with status 502",
                "Telegram сообщает: Bot API отвечает со статусом 502",
            ),
            (
                ErrorCode::Telegram,
                "Telegram refuses the request: call +7 900",
                "Telegram says: Telegram refuses the request",
                "Telegram сообщает: Telegram отклоняет запрос",
            ),
        ] {
            assert_eq!(en.detail(code, detail).as_deref(), Some(in_english));
            assert_eq!(ru.detail(code, detail).as_deref(), Some(in_russian));
        }
        for code in ErrorCode::ALL {
            for foreign in [
                "Call +7 900 123-45-67",
                "900 s. Call us",
                "the Bot API answers with status x",
                "",
            ] {
                assert_eq!(en.detail(*code, foreign), None, "{code} {foreign}");
            }
        }
        assert_eq!(
            ru.fault("no connection to the Bot API: refused"),
            "нет связи с Bot API: refused"
        );
        assert_eq!(ru.fault("something else"), "something else");
    }

    #[test]
    fn charts_say_that_their_hours_are_those_of_utc() {
        for lang in [Lang::En, Lang::Ru] {
            let t = texts(lang);
            assert!(t.chart_title.contains("UTC") && t.jobs_chart_title.contains("UTC"));
        }
    }

    #[test]
    fn both_languages_have_the_same_places_to_fill() {
        for (name, en, ru) in table::ROWS {
            assert!(!en.is_empty() && !ru.is_empty(), "{name} is empty");
            assert_eq!(en.matches("{}").count(), ru.matches("{}").count(), "{name}");
        }
    }
}
