//! What the dashboard says, in every language it speaks, and how it writes figures.
//!
//! The language is chosen by the server (cookie, then `Accept-Language`) and holds for a whole document: changing it loads a new
//! one. So texts are plain constants, no signals. One table (`table.rs`) holds a row per sentence with all its languages: a
//! missing translation does not compile.

mod table;

use domain::{
    ErrorCode, Lang, LimitKind, Measure, Money, Role, Scope,
    views::{UserStatus, jobs::JobList},
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

    /// What the server added to a failure: what was expected, how long to wait, which scope is missing.
    pub fn detail(&self, code: ErrorCode, detail: &str) -> String {
        let expected = self.expectation(detail);
        match code {
            ErrorCode::Invalid => fill(self.detail_expected, &[expected.unwrap_or(detail)]),
            ErrorCode::Throttled => fill(self.detail_wait, &[detail]),
            ErrorCode::Forbidden => fill(self.detail_scope, &[detail]),
            ErrorCode::Telegram => fill(self.detail_telegram, &[detail]),
            _ => sentence(expected.unwrap_or(detail)),
        }
    }

    /// The phrases with which values refuse what was typed.
    fn expectation(&self, phrase: &str) -> Option<&'static str> {
        match (self.lang, phrase) {
            (Lang::En, _) => None,
            (Lang::Ru, phrase) => Some(match phrase {
                "a reason of 1 to 500 characters" => "причина от 1 до 500 знаков",
                "a name of 1 to 40 characters" => "название от 1 до 40 знаков",
                "a name of 1 to 64 characters" => "имя от 1 до 64 знаков",
                "at most 200 characters" => "не больше 200 знаков",
                "an e-mail address such as ann@example.org" => "адрес почты вида ann@example.org",
                "a password of 10 to 200 characters" => "пароль от 10 до 200 знаков",
                "an amount in dollars such as 12.50" => "сумма в долларах вида 12.50",
                "a time zone such as UTC or Europe/Berlin" => "часовой пояс вида UTC или Europe/Moscow",
                "a threshold of 1 to 100 percent" => "порог от 1 до 100 процентов",
                "a date that is still to come" => "дата, которая ещё не наступила",
                "more than the limit without it" => "больше, чем лимит без прибавки",
                "the user has no such limit" => "у пользователя нет такого лимита",
                "nothing would change" => "ничего не изменилось бы",
                "a whole number from 0, or none" => "целое число от 0 или пусто",
                "a message of 1 to 4096 characters" => "сообщение от 1 до 4096 знаков",
                "a page key from a link of this list" => "ключ страницы из ссылки этого списка",
                "polling, since BOTDECK_PUBLIC_URL is not set" => "опрос, так как BOTDECK_PUBLIC_URL не задан",
                "this e-mail address has an account already" => "у этого адреса почты уже есть учётная запись",
                "there is a plan of this name already" => "тариф с таким названием уже есть",
                "the user has this plan already" => "у человека уже этот тариф",
                "at least one job" => "хотя бы одна задача",
                "at most 200 jobs at once" => "не больше 200 задач за раз",
                "a model of the list" => "модель из списка",
                "a text of at most 4000 characters" => "текст до 4000 знаков",
                "a bot of Telegram" => "бот из Telegram",
                "this token is of another bot" => "это токен другого бота",
                "the bot is stopped; start it first" => "бот остановлен; сначала запустите его",
                "the bot is running already" => "бот уже запущен",
                "the bot is stopped already" => "бот уже остановлен",
                "the user is blocked already" => "пользователь уже заблокирован",
                "the user is not blocked" => "пользователь не заблокирован",
                "a bot token from @BotFather, such as 123456789:AAF…" => {
                    "токен бота от @BotFather вида 123456789:AAF…"
                }
                "a token that Telegram knows; @BotFather shows it after /token" => {
                    "токен, известный Telegram; @BotFather показывает его по команде /token"
                }
                "this link was used or is out of date; start botdeck again for a new one" => {
                    "эта ссылка уже использована или устарела; запустите botdeck ещё раз, чтобы получить новую"
                }
                "a bot with a playground" => "бот с площадкой",
                "the bot" => "бот",
                "the plan" => "тариф",
                "the user" => "пользователь",
                _ => return None,
            }),
        }
    }

    /// Words for an action of the audit trail; `None` for one this version does not know.
    pub fn action(&self, action: &str) -> Option<&'static str> {
        Some(match action {
            "user.block" => self.pick("Blocked a user", "Заблокировал пользователя"),
            "user.unblock" => self.pick("Unblocked a user", "Разблокировал пользователя"),
            "user.boost" => self.pick("Changed a user's boost", "Изменил прибавку пользователя"),
            "user.reset_limit" => self.pick("Began a user's limit anew", "Начал лимит пользователя заново"),
            "limits.set" => self.pick("Set limits", "Задал лимиты"),
            "user.plan" => self.pick("Changed a user's plan", "Сменил тариф пользователя"),
            "conversation.read" => self.pick("Read a conversation", "Прочитал переписку"),
            "plan.create" => self.pick("Created a plan", "Создал тариф"),
            "plan.limits" => self.pick("Changed limits", "Изменил лимиты"),
            "bot.replace_token" => self.pick("Replaced a bot's token", "Заменил токен бота"),
            "bot.add" => self.pick("Added a bot", "Добавил бота"),
            "bot.edit" => self.pick("Changed a bot's persona or model", "Изменил характер или модель бота"),
            "bot.mode" => self.pick("Changed how a bot's messages come in", "Сменил способ приёма у бота"),
            "bot.restart" => self.pick("Had a bot try again", "Велел боту попробовать снова"),
            "job.retry" => self.pick("Put a job back", "Вернул задачу в очередь"),
            "job.discard" => self.pick("Discarded a job", "Отклонил задачу"),
            "bot.start" => self.pick("Started a bot", "Запустил бота"),
            "bot.stop" => self.pick("Stopped a bot", "Остановил бота"),
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
            "model" => self.pick("model", "модель"),
            "api_key" => self.pick("API key", "ключ API"),
            "deployment" => self.pick("the whole deck", "вся панель"),
            "job" => self.pick("job", "задача"),
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
    fn both_languages_have_the_same_places_to_fill() {
        for (name, en, ru) in table::ROWS {
            assert!(!en.is_empty() && !ru.is_empty(), "{name} is empty");
            assert_eq!(en.matches("{}").count(), ru.matches("{}").count(), "{name}");
        }
    }
}
