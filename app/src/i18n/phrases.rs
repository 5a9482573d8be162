//! Phrases that come from the server as they stand in its code, with their Russian. The English is the key: a test finds every
//! phrase that is said there and missing here.

/// With which services and values refuse.
pub(super) const EXPECTATIONS: &[(&str, &str)] = &[
    ("the name of a model", "имя модели"),
    (
        "a plan, a user, an API key, a bot, a model or the whole deployment",
        "тариф, пользователь, ключ API, бот, модель или вся панель",
    ),
    (
        "there is no limit that could be counted so",
        "нет лимита, который так считался бы",
    ),
    (
        "messages, tokens, money or images, with _per_minute, _per_day, _per_month or _total",
        "messages, tokens, money или images с _per_minute, _per_day, _per_month или _total",
    ),
    (
        "a time zone such as UTC or Europe/Berlin",
        "часовой пояс вида UTC или Europe/Moscow",
    ),
    ("a threshold of 1 to 100 percent", "порог от 1 до 100 процентов"),
    (
        "any, active, expiring, expired or revoked",
        "any, active, expiring, expired или revoked",
    ),
    ("created, name or used", "created, name или used"),
    ("a time such as 2026-11-24T10:30", "время вида 2026-11-24T10:30"),
    ("an end that comes after its beginning", "конец позже начала"),
    ("hour, day, week, month or all", "hour, day, week, month или all"),
    (
        "a trace id of 32 hexadecimal digits",
        "id трассы из 32 шестнадцатеричных цифр",
    ),
    ("a date that is still to come", "дата, которая ещё не наступила"),
    ("more than the limit without it", "больше, чем лимит без прибавки"),
    ("chat models of the list", "модели для чата из списка"),
    ("there is no such limit", "такого лимита нет"),
    (
        "each user of a plan uses up its limits alone",
        "лимиты тарифа каждый его пользователь расходует отдельно",
    ),
    ("nothing would change", "ничего не изменилось бы"),
    ("off, user or shared", "off, user или shared"),
    ("a time of 60 to 2592000 seconds", "время от 60 до 2592000 секунд"),
    (
        "a likeness of 0.5 to 1, such as 0.92",
        "сходство от 0,5 до 1, например 0,92",
    ),
    ("an embedding model of the list", "модель эмбеддингов из списка"),
    ("the provider", "провайдер"),
    ("the model", "модель"),
    ("the key", "ключ"),
    ("the name", "имя"),
    ("a name of 1 to 120 characters", "имя от 1 до 120 знаков"),
    ("openai or anthropic", "openai или anthropic"),
    (
        "chat, embedding, image, transcription or speech",
        "chat, embedding, image, transcription или speech",
    ),
    (
        "an http or https address such as https://api.openai.com/v1",
        "адрес http или https вида https://api.openai.com/v1",
    ),
    ("a whole number from 1, or nothing", "целое число от 1 или пусто"),
    ("a whole number of tokens from 1", "целое число токенов от 1"),
    ("a place from 1 to 9, or nothing", "место от 1 до 9 или пусто"),
    ("places and weights from 1", "места и доли от 1"),
    ("a share from 1 to 1000", "доля от 1 до 1000"),
    ("1 to 20 models for a name to lead to", "от 1 до 20 моделей для имени"),
    ("models of one kind behind a name", "за одним именем модели одного вида"),
    ("a model stands behind a name once", "модель стоит за именем только раз"),
    ("a key of one line without spaces", "ключ в одну строку без пробелов"),
    (
        "a proxy such as http://user:password@host:3128",
        "прокси вида http://user:password@host:3128",
    ),
    (
        "headers as lines such as X-Team: support",
        "заголовки строками вида X-Team: support",
    ),
    (
        "there is a provider of this name already",
        "провайдер с таким названием уже есть",
    ),
    (
        "this provider has a model of this name already",
        "у этого провайдера уже есть такая модель",
    ),
    (
        "this provider follows OPENAI_* of the settings",
        "этот провайдер следует OPENAI_* из настроек",
    ),
    (
        "the models of this provider are those of OPENAI_MODEL",
        "модели этого провайдера перечислены в OPENAI_MODEL",
    ),
    ("a reason of 1 to 500 characters", "причина от 1 до 500 знаков"),
    ("a name of 1 to 40 characters", "название от 1 до 40 знаков"),
    ("a name of 1 to 64 characters", "имя от 1 до 64 знаков"),
    ("at most 200 characters", "не больше 200 знаков"),
    (
        "an e-mail address such as ann@example.org",
        "адрес почты вида ann@example.org",
    ),
    ("a password of 10 to 200 characters", "пароль от 10 до 200 знаков"),
    ("an amount in dollars such as 12.50", "сумма в долларах вида 12.50"),
    ("a whole number from 0, or none", "целое число от 0 или пусто"),
    ("a message of 1 to 4096 characters", "сообщение от 1 до 4096 знаков"),
    (
        "a page key from a link of this list",
        "ключ страницы из ссылки этого списка",
    ),
    (
        "polling, since BOTDECK_PUBLIC_URL is not set",
        "опрос, так как BOTDECK_PUBLIC_URL не задан",
    ),
    (
        "this e-mail address has an account already",
        "у этого адреса почты уже есть учётная запись",
    ),
    (
        "there is a plan of this name already",
        "тариф с таким названием уже есть",
    ),
    ("the user has this plan already", "у человека уже этот тариф"),
    ("at least one job", "хотя бы одна задача"),
    ("at most 200 jobs at once", "не больше 200 задач за раз"),
    ("a model of the list", "модель из списка"),
    ("a text of at most 4000 characters", "текст до 4000 знаков"),
    ("a bot of Telegram", "бот из Telegram"),
    ("this token is of another bot", "это токен другого бота"),
    (
        "the bot is stopped; start it first",
        "бот остановлен; сначала запустите его",
    ),
    ("the bot is running already", "бот уже запущен"),
    ("the bot is stopped already", "бот уже остановлен"),
    ("the user is blocked already", "пользователь уже заблокирован"),
    ("the user is not blocked", "пользователь не заблокирован"),
    (
        "a bot token from @BotFather, such as 123456789:AAF…",
        "токен бота от @BotFather вида 123456789:AAF…",
    ),
    (
        "a token that Telegram knows; @BotFather shows it after /token",
        "токен, известный Telegram; @BotFather показывает его по команде /token",
    ),
    (
        "this link was used or is out of date; start botdeck again for a new one",
        "эта ссылка уже использована или устарела; запустите botdeck ещё раз, чтобы получить новую",
    ),
    ("a bot with a playground", "бот с площадкой"),
    ("at least one kind of call", "хотя бы один вид запросов"),
    ("at least one model, or all of them", "хотя бы одна модель или все"),
    ("the key is revoked already", "ключ уже отозван"),
    ("the key", "ключ"),
    (
        "chat, embeddings, images, audio or models",
        "chat, embeddings, images, audio или models",
    ),
    ("month, quarter, year or forever", "month, quarter, year или forever"),
    ("any, good or failed", "any, good или failed"),
    ("the bot", "бот"),
    ("the plan", "тариф"),
    ("the user", "пользователь"),
    ("a date such as 2026-11-24", "дата вида 2026-11-24"),
    (
        "dead, retrying, running, waiting or discarded",
        "dead, retrying, running, waiting или discarded",
    ),
    ("owner, admin, support or viewer", "owner, admin, support или viewer"),
    ("a Telegram update with an update_id", "событие Telegram с update_id"),
    ("a member of staff with this address", "сотрудник с таким адресом"),
    ("the request of a page of this site", "запрос со страницы этого сайта"),
];

/// How the bot runtime tells what is the matter with Telegram. Other words may follow a colon; `{}` is a number.
pub(super) const TELEGRAM: &[(&str, &str)] = &[
    (
        "Telegram refuses the token: it was revoked or mistyped. Add the bot again with a new one.",
        "Telegram не принимает токен: он отозван или введён с ошибкой. Добавьте бота снова с новым токеном.",
    ),
    (
        "Somebody else is receiving this bot's messages (409). Stop the other program.",
        "Сообщения этого бота получает кто-то ещё (409). Остановите другую программу.",
    ),
    ("Telegram does not know the bot's token", "Telegram не знает токен бота"),
    ("Telegram reports a conflict", "Telegram сообщает о конфликте"),
    ("Telegram asks to wait for {} s", "Telegram просит подождать {} с"),
    ("the chat is closed to the bot", "чат закрыт для бота"),
    (
        "the Bot API server does not know the method",
        "сервер Bot API не знает этого метода",
    ),
    ("Telegram refuses the request", "Telegram отклоняет запрос"),
    ("the Bot API answers with status {}", "Bot API отвечает со статусом {}"),
    ("the Bot API does not answer in time", "Bot API не отвечает вовремя"),
    ("no connection to the Bot API", "нет связи с Bot API"),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// The string literals of a piece of code.
    fn literals(code: &str) -> Vec<&str> {
        code.split('"').skip(1).step_by(2).collect()
    }

    /// What stands in the parentheses that begin `code`.
    fn parenthesised(code: &str) -> &str {
        let mut depth = 0;
        let end = code.char_indices().find(|(_, character)| {
            depth += match character {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        &code[..end.map_or(code.len(), |(at, _)| at)]
    }

    /// The value of `const NAME: &str`.
    fn constant<'a>(code: &'a str, name: &str) -> Option<&'a str> {
        let after = code.split(&format!("const {name}: &str")).nth(1)?;
        after.split('"').nth(1)
    }

    /// Every phrase that the code makes one of these kinds of failure of.
    fn said(code: &str) -> BTreeSet<String> {
        let code = code.split("#[cfg(test)]").next().unwrap();
        let mut phrases = BTreeSet::new();
        for kind in ["Invalid(", "Conflict(", "NotFound(", "ErrorCode::Origin, "] {
            for (at, _) in code.match_indices(kind) {
                let inside = parenthesised(&code[at + kind.len() - 1..]);
                let inside = if kind.ends_with('(') {
                    inside
                } else {
                    code[at..].split(')').next().unwrap()
                };
                phrases.extend(literals(inside).into_iter().map(str::to_owned));
                let names = inside.split(|character: char| !character.is_ascii_uppercase() && character != '_');
                phrases.extend(names.filter_map(|name| constant(code, name)).map(str::to_owned));
            }
        }
        // The values that are made by a macro, and those that hand the phrase on by a name.
        if let Some(values) = code.split("\ntext_value! {").nth(1) {
            let rows = values.split("\n}").next().unwrap();
            let rows = rows.lines().filter(|line| !line.trim_start().starts_with("//"));
            phrases.extend(rows.flat_map(literals).map(str::to_owned));
        }
        phrases.extend(constant(code, "EXPECTED").map(str::to_owned));
        phrases
    }

    fn sources(folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut code = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // What the settings file expects is told at the command line.
            if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("keys.rs") {
                code.push(fs::read_to_string(path).unwrap());
            }
        }
        code
    }

    #[test]
    fn every_phrase_of_the_server_has_words_and_every_word_is_said() {
        let folders = [
            "../server/services/src",
            "../server/services/src/limits",
            "../server/services/src/models",
            "src/pages/models",
            "domain/src",
            "domain/src/views",
            "../server/src/web",
        ];
        let said: BTreeSet<String> = folders
            .iter()
            .flat_map(|folder| sources(folder))
            .flat_map(|code| said(&code))
            .collect();
        let known: BTreeSet<String> = EXPECTATIONS.iter().map(|(en, _)| (*en).to_owned()).collect();
        assert!(said.len() > 30, "{said:?}");
        assert_eq!(
            said.difference(&known).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "without words"
        );
        assert_eq!(
            known.difference(&said).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "nobody says so"
        );
    }

    #[test]
    fn what_is_said_of_telegram_is_what_the_bot_runtime_says() {
        let code = [
            sources("../server/bot/src/telegram"),
            sources("../server/bot/src/intake"),
        ]
        .concat()
        .concat();
        for (en, _) in TELEGRAM {
            let fixed = en.split("{}").next().unwrap();
            assert!(code.contains(fixed), "nobody says {en:?}");
        }
        // All that is said by an error of Telegram's which concerns the bot as a whole.
        for piece in code.split("#[error(\"Telegram ").skip(1) {
            let text = format!("Telegram {}", piece.split(['"', '{', ':']).next().unwrap());
            assert!(
                TELEGRAM.iter().any(|(en, _)| en.starts_with(text.trim_end())),
                "{text:?} has no words"
            );
        }
    }
}
