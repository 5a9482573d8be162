//! One row per sentence: name, English, Russian. `{}` is filled in, in order.

use domain::Lang;

macro_rules! texts {
    ($($name:ident: $en:literal, $ru:literal;)+) => {
        /// Every sentence of the dashboard in one language.
        #[derive(Debug)]
        pub struct Texts {
            pub lang: Lang,
            $(pub $name: &'static str,)+
        }

        pub(super) static EN: Texts = Texts { lang: Lang::En, $($name: $en,)+ };
        pub(super) static RU: Texts = Texts { lang: Lang::Ru, $($name: $ru,)+ };

        /// The rows as they stand here, for tests.
        #[cfg(test)]
        pub(super) const ROWS: &[(&str, &str, &str)] = &[$((stringify!($name), $en, $ru),)+];
    };
}

texts! {
    // Everywhere
    tagline: "Botdeck · Telegram AI bots, governed in one place", "Botdeck · Telegram-боты с ИИ под одним управлением";
    skip: "Skip to content", "К содержанию";
    nav: "Main", "Разделы";
    nav_overview: "Overview", "Обзор";
    nav_users: "Users", "Люди";
    nav_plans: "Limits", "Лимиты";
    nav_bots: "Bots", "Боты";
    nav_jobs: "Jobs", "Задачи";
    nav_requests: "Requests", "Запросы";
    nav_keys: "API keys", "Ключи API";
    nav_audit: "Audit", "Аудит";
    brand_home: "Botdeck, to the overview", "Botdeck, к обзору";
    breadcrumbs: "Breadcrumbs", "Путь";
    search: "Search", "Поиск";
    search_hint: "Search people…", "Найти человека…";
    search_label: "Search people", "Поиск людей";
    live_on: "live", "вживую";
    live_cut: "line cut", "нет связи";
    account_menu: "Account", "Учётная запись";
    sign_in: "Sign in", "Войти";
    sign_out: "Sign out", "Выйти";
    theme_to_light: "Switch to light colours", "Включить светлую тему";
    theme_to_dark: "Switch to dark colours", "Включить тёмную тему";
    theme_to_auto: "Use the system's colours", "Тема как в системе";
    loading: "Loading", "Загрузка";
    copy: "Copy", "Скопировать";
    copied: "Copied", "Скопировано";
    save: "Save", "Сохранить";
    saved: "Saved:", "Сохранено:";
    saved_nothing: "Saved. Nothing was different.", "Сохранено. Ничего не изменилось.";
    reload: "Reload", "Обновить";
    name: "Name", "Имя";
    email: "E-mail", "Почта";
    password: "Password", "Пароль";
    password_show: "Show password", "Показать пароль";
    password_rule: "At least 10 characters. A sentence is stronger than symbols.", "Не короче 10 знаков. Фраза надёжнее, чем спецсимволы.";
    filters: "Filters", "Фильтры";
    filter_apply: "Apply", "Применить";
    filter_reset: "Reset", "Сбросить";
    pager: "Pages", "Страницы";
    pager_first: "First page", "Первая страница";
    pager_next: "Next", "Дальше";
    decimal_point: ".", ",";
    ms: "ms", "мс";
    s: "s", "с";
    min: "min", "мин";
    h: "h", "ч";

    // Failures
    error_code: "Code", "Код";
    forbidden_title: "Not allowed", "Нет доступа";
    not_found_title: "Not found", "Не найдено";
    failed_title: "This did not work", "Не получилось";
    to_overview: "To the overview", "К обзору";
    detail_expected: "Expected {}.", "Ожидается: {}.";
    detail_wait: "Next attempt in {}.", "Следующая попытка через {}.";
    detail_scope: "Missing scope: {}", "Не хватает права: {}";
    detail_telegram: "Telegram says: {}", "Telegram сообщает: {}";

    // Set-up
    setup_title: "Create the owner", "Создание владельца";
    setup_lead: "This deck has no owner yet. The account made here may do everything, also let others in.", "У этой панели ещё нет владельца. Созданная здесь учётная запись может всё, в том числе впускать других.";
    setup_create: "Create and sign in", "Создать и войти";
    setup_done: "The owner account exists. Please sign in.", "Учётная запись владельца уже есть. Войдите.";
    setup_needs_link: "Open the one-time link that the terminal printed when Botdeck started.", "Откройте одноразовую ссылку, которую напечатал терминал при запуске Botdeck.";
    setup_needs_link_hint: "It looks like /setup?token=… A restart prints a new one.", "Она выглядит как /setup?token=… Перезапуск напечатает новую.";

    // Overview
    today_utc: "Today (UTC), as of", "Сегодня (UTC), на";
    stat_messages: "Messages", "Сообщения";
    stat_users: "Active users", "Активные люди";
    stat_tokens: "Tokens", "Токены";
    stat_cost: "Cost", "Расход";
    stat_answer: "Answer time, p50", "Время ответа, p50";
    stat_errors: "Errors", "Ошибки";
    cost_month: "{} this month", "{} за месяц";
    p95: "p95 {}", "p95 {}";
    errors_share: "{} of messages", "{} сообщений";
    chart_title: "Last 24 hours (UTC)", "Последние 24 часа (UTC)";
    chart_summary: "{} answers, {} errors.", "Ответов: {}, ошибок: {}.";
    chart_messages: "answers", "ответы";
    chart_errors: "errors", "ошибки";
    chart_as_table: "As a table", "Таблицей";
    chart_empty: "No messages yet", "Сообщений пока нет";
    chart_empty_hint: "As soon as somebody writes to a bot, the hours fill up here.", "Как только кто-то напишет боту, здесь появятся часы.";
    hour: "Hour (UTC)", "Час (UTC)";
    errors_title: "Errors by code", "Ошибки по кодам";
    errors_none: "No errors today", "Сегодня без ошибок";
    queue_title: "Queue", "Очередь";
    queue_waiting: "Waiting", "Ждут";
    queue_running: "Running", "Выполняются";
    queue_oldest: "Oldest waits", "Старейшая ждёт";
    queue_dead: "Dead letters", "Не удалось обработать";
    redis_down: "Redis does not answer. Nothing is lost; limits per minute follow a stricter local count until it is back.", "Redis не отвечает. Ничего не потеряно; лимиты в минуту пока считаются строже, внутри процесса.";
    messages_today: "{} {} today", "{} {} сегодня";
    todo_title: "What is left to do", "Что осталось сделать";
    todo_playground: "Try the bot in the browser", "Попробовать бота в браузере";
    todo_playground_text: "The playground sends messages the same way Telegram does.", "Площадка отправляет сообщения тем же путём, что и Telegram.";
    todo_playground_link: "Open the playground", "Открыть площадку";
    todo_model: "Give the bots a model", "Подключить модель";
    todo_model_text: "The built-in demo model answers now. Set OPENAI_API_KEY (and OPENAI_BASE_URL, OPENAI_MODEL for another provider) and restart.", "Сейчас отвечает встроенная демо-модель. Задайте OPENAI_API_KEY (для другого провайдера ещё OPENAI_BASE_URL и OPENAI_MODEL) и перезапустите.";
    todo_model_done: "Answers come from {}.", "Отвечает {}.";
    todo_bot: "Connect a Telegram bot", "Подключить Telegram-бота";
    todo_bot_text: "Get a token from @BotFather and enter it here.", "Получите токен у @BotFather и введите его здесь.";
    todo_bot_link: "Add a bot", "Добавить бота";
    todo_limits: "Look at the limits", "Проверить лимиты";
    todo_limits_text: "The default plan decides how much every new user may use.", "Тариф по умолчанию решает, сколько может тратить каждый новый человек.";
    todo_limits_link: "Open limits", "Открыть лимиты";
    step_done: "Done", "Готово";
    step_open: "To do", "Предстоит";

    // Users
    users_lead: "Everybody who has talked to a bot.", "Все, кто говорил с ботом.";
    users_search_hint: "Name, @username or Telegram id", "Имя, @имя или Telegram id";
    users_none: "Nobody has written yet", "Пока никто не писал";
    users_none_hint: "People appear here with their first message, those of the playground too.", "Люди появляются здесь с первым сообщением, в том числе с площадки.";
    users_none_found: "Nobody fits these filters", "Никто не подходит под фильтры";
    users_none_found_hint: "Try a part of the name, or reset the filters.", "Попробуйте часть имени или сбросьте фильтры.";
    user: "User", "Человек";
    nameless: "No name", "Без имени";
    status: "Status", "Состояние";
    active: "Active", "Активен";
    blocked: "Blocked", "Заблокирован";
    plan: "Plan", "Тариф";
    any_plan: "Any", "Любой";
    fullest_limit: "Fullest limit", "Ближайший лимит";
    percent_used: "{} % used", "Использовано {} %";
    no_limit: "No limit", "Без лимита";
    spent_month: "Spent this month", "Расход за месяц";
    first_seen: "First seen", "Впервые";
    last_seen: "Last seen", "Последний раз";

    // User
    who_title: "Who", "Кто это";
    username: "Username", "Имя в Telegram";
    telegram_id: "Telegram id", "Telegram id";
    playground_person: "Playground (staff)", "Площадка (сотрудник)";
    language: "Language", "Язык";
    limits_title: "Limits", "Лимиты";
    limits_note: "Plan {}", "Тариф {}";
    limit_text: "{} of {} used, {} left", "Использовано {} из {}, осталось {}";
    of_limit: "of {}", "из {}";
    limit_reserved: "{} reserved", "{} в резерве";
    limit_left: "{} left", "осталось {}";
    limit_unknown: "Limit {}; how many are used is not known while Redis is away", "Лимит {}; пока нет Redis, неизвестно, сколько израсходовано";
    resets: "Resets", "Сброс";
    conversations_title: "Conversations", "Переписка";
    conversations_older: "Older conversations", "Более ранние";
    conversations_none: "No conversations yet", "Переписки пока нет";
    conversation: "Conversation", "Переписка";
    conversation_current: "current", "текущая";
    started: "Started", "Начало";
    last_message: "Last message", "Последнее";
    user_errors_title: "Errors they met", "Ошибки, которые встретились";
    user_errors_none: "No errors", "Ошибок не было";
    actions_title: "Actions", "Действия";
    plan_change: "Change plan", "Сменить тариф";
    block: "Block…", "Заблокировать…";
    block_hint: "The bots stop answering this person at once. The reason is seen by staff only.", "Боты сразу перестанут отвечать этому человеку. Причину видят только сотрудники.";
    block_confirm: "Block", "Заблокировать";
    reason: "Reason", "Причина";
    reason_hint: "Kept in the audit trail.", "Сохранится в аудите.";
    unblock: "Unblock", "Разблокировать";
    unblock_hint: "The bots will answer this person again.", "Боты снова будут отвечать этому человеку.";
    staff_actions_title: "Staff actions", "Действия сотрудников";
    staff_actions_note: "Everything staff did with this person.", "Всё, что сотрудники делали с этим человеком.";
    staff_actions_all: "All in the audit trail", "Всё в аудите";
    staff_actions_none: "Nothing has been done yet", "Пока ничего не делали";

    // Transcript
    transcript_title: "Conversation", "Переписка";
    transcript_with: "Conversation with {}", "Переписка: {}";
    transcript_in: "Group {}", "Группа: {}";
    transcript_somebody: "Somebody of the group", "Кто-то из группы";
    transcript_empty: "Nothing was said here", "Здесь ничего не сказано";
    reading_recorded: "This is a private conversation. That you opened it is recorded in the audit trail.", "Это частная переписка. То, что вы её открыли, записано в аудит.";
    to_user: "To the user", "К человеку";
    older_messages: "Older messages", "Более ранние";
    cause: "Cause", "Причина";
    model: "Model", "Модель";
    prompt_tokens: "Prompt tokens", "Токены запроса";
    completion_tokens: "Answer tokens", "Токены ответа";
    cost: "Cost", "Стоимость";
    first_token: "To first token", "До первого токена";
    total_time: "In all", "Всего";
    finish: "Ended", "Завершение";
    finish_stop: "complete", "полностью";
    finish_length: "at the length limit", "на пределе длины";
    finish_stopped: "stopped by the user", "остановил человек";
    finish_cut: "broke off", "оборвалось";
    finish_failed: "failed", "не удалось";
    finish_filtered: "held back by the provider's filter", "задержано фильтром провайдера";
    attempts: "Attempts", "Попыток";
    tries: "{} attempts", "попыток: {}";

    // Plans
    plans_lead: "What the users of each plan may use up. Days and months are those of UTC.", "Сколько могут потратить люди на каждом тарифе. Дни и месяцы считаются по UTC.";
    plans_none: "No plans", "Тарифов нет";
    plan_default: "New users get this", "Для новых людей";
    plan_users: "{} {}", "{} {}";
    plan_hint: "Empty means no limit; 0 lets nothing through.", "Пусто значит без лимита; 0 не пропускает ничего.";
    plan_save_label: "Save limits of plan {}", "Сохранить лимиты тарифа {}";
    plan_new: "New plan", "Новый тариф";
    plan_new_hint: "It starts without limits; set them after it is created.", "Сначала без лимитов; задайте их после создания.";
    plan_create: "Create plan", "Создать тариф";

    // Bots
    bots_lead: "Every bot of this deployment, in one process, from one code.", "Все боты этой установки: один процесс, один код.";
    bots_empty: "No bots yet", "Ботов пока нет";
    bots_empty_hint: "Add one with a token from @BotFather.", "Добавьте бота токеном от @BotFather.";
    bot_running: "Running", "Работает";
    bot_starting: "Starting", "Запускается";
    bot_stopped: "Stopped", "Остановлен";
    bot_fault: "Fault", "Сбой";
    bot_way: "Messages come", "Сообщения приходят";
    bot_browser: "from the browser", "из браузера";
    bot_polling: "by polling", "опросом";
    bot_polling_hint: "Works everywhere, also behind a firewall.", "Работает везде, и за межсетевым экраном.";
    bot_webhook: "by webhook", "вебхуком";
    bot_webhook_hint: "Faster; needs a public https address (BOTDECK_PUBLIC_URL).", "Быстрее; нужен публичный адрес https (BOTDECK_PUBLIC_URL).";
    bot_today: "Messages today", "Сообщений сегодня";
    bot_last_update: "Last update", "Последнее событие";
    bot_stop: "Stop…", "Остановить…";
    bot_stop_hint: "{} stops taking messages. What people write meanwhile waits at Telegram for up to a day.", "{} перестанет принимать сообщения. Написанное тем временем ждёт у Telegram до суток.";
    bot_stop_hint_browser: "{} stops answering in the browser until it is started again.", "{} перестанет отвечать в браузере, пока его не запустят снова.";
    bot_stop_confirm: "Stop the bot", "Остановить бота";
    bot_start: "Start", "Запустить";
    bot_start_label: "Start {}", "Запустить {}";
    bot_new: "Add a bot", "Добавить бота";
    bot_token: "Bot token", "Токен бота";
    bot_token_hint: "From @BotFather. It is checked with Telegram, stored encrypted, and never shown again.", "От @BotFather. Проверяется у Telegram, хранится зашифрованным и больше не показывается.";
    bot_mode: "How messages come in", "Как приходят сообщения";
    bot_add: "Check and add", "Проверить и добавить";
    bot_added: "{} was added and is starting.", "{} добавлен и запускается.";

    bot_lease: "Run by", "Где работает";
    bot_lag: "Oldest message waits", "Старейшее сообщение ждёт";
    bot_no_lag: "nothing waits", "ничего не ждёт";
    bot_pending: "Waiting at Telegram", "Ждут у Telegram";
    bot_pending_unknown: "not known yet", "пока неизвестно";
    bot_floods: "Flood waits in the last hour", "Пауз от Telegram за час";
    bot_again: "Try again now", "Попробовать сейчас";
    bot_again_label: "Try again now to start {}", "Попробовать сейчас запустить {}";
    bot_settings: "Settings", "Настройки";
    bot_settings_label: "Settings of {}", "Настройки: {}";
    bot_persona: "Persona", "Характер";
    bot_persona_hint: "What the model is told about itself before every conversation. Empty: a helpful assistant.", "Что модели говорят о ней самой перед каждой перепиской. Пусто: дружелюбный помощник.";
    bot_model_default: "Default ({})", "По умолчанию ({})";
    bot_save_label: "Save settings of {}", "Сохранить настройки: {}";
    bot_saved: "Saved. It holds from the next message on.", "Сохранено. Действует со следующего сообщения.";
    bot_mode_save: "Change how messages come in", "Сменить способ приёма";
    bot_new_token: "New token", "Новый токен";
    bot_new_token_hint: "Of the same bot, from @BotFather. The old one is forgotten.", "Того же бота, от @BotFather. Старый будет забыт.";
    bot_token_save: "Check and replace", "Проверить и заменить";
    bot: "Bot", "Бот";
    any_bot: "Any", "Любой";
    ago: "{} ago", "{} назад";

    // Jobs
    jobs_lead: "Everything that was accepted and is to be answered: what waits, what runs, what failed.", "Всё, что принято и ждёт ответа: что в очереди, что выполняется, что не удалось.";
    jobs_as_of: "As of", "На";
    jobs_ready: "{} may run now", "можно начать: {}";
    jobs_last_minute: "Last minute", "За минуту";
    jobs_hour_rate: "{} over the hour", "{} в среднем за час";
    jobs_chart_title: "Finished in the last hour (UTC)", "Готово за последний час (UTC)";
    jobs_chart_summary: "{} jobs finished, {} dead letters.", "Готово задач: {}, не удалось: {}.";
    jobs_chart_empty: "Nothing was finished in the last hour", "За последний час ничего не завершено";
    jobs_done: "finished", "готово";
    jobs_died: "dead letters", "не удалось";
    minute: "Minute (UTC)", "Минута (UTC)";
    jobs_in_hand: "Running now", "Выполняются сейчас";
    jobs_idle: "Nothing is running", "Ничего не выполняется";
    jobs_idle_hint: "Workers are free.", "Исполнители свободны.";
    job_attempt: "attempt {} of {}", "попытка {} из {}";
    job_attempt_of: "{} of {}", "{} из {}";
    job_lease: "lease {}", "аренда {}";
    jobs_lists: "Lists of jobs", "Списки задач";
    jobs_search_hint: "Words of the last error…", "Слова последней ошибки…";
    jobs_none_found: "No job fits these filters", "Под фильтры ничего не подходит";
    job: "Job", "Задача";
    job_error: "Cause", "Причина";
    job_attempts: "Attempts", "Попытки";
    job_died: "Died", "Не удалась";
    job_discarded: "Discarded", "Отклонена";
    job_next_try: "Next try", "Следующая попытка";
    job_since: "Since", "С";
    job_worker: "Worker", "Исполнитель";
    job_lease_left: "Lease left", "Осталось аренды";
    job_lease_over: "overdue", "просрочена";
    job_waits_for: "Waits for", "Ждёт";
    job_came: "Came", "Пришла";
    job_behind: "earlier ones of its chat", "более ранних в своём чате";
    job_ready: "a free worker", "свободного исполнителя";
    job_conversation: "Conversation", "Переписка";
    job_payload: "Payload, redacted", "Содержимое без личного";
    job_payload_hint: "Texts, names and ids are left out: # stands for a number, \"…\" with a figure for a text of that length.", "Тексты, имена и id убраны: # это число, \"…\" с цифрой это текст такой длины.";
    jobs_choose: "Choose", "Выбрать";
    jobs_choose_all: "All on this page", "Все на этой странице";
    jobs_choose_one: "{}, {}, {}", "{}, {}, {}";
    jobs_chosen: "Chosen: {}", "Выбрано: {}";
    jobs_retry: "Retry…", "Повторить…";
    jobs_retry_hint: "The chosen jobs go back into the queue, each behind what its chat is already waiting for. What was sent before is not sent again; the budget is set aside anew.", "Выбранные задачи вернутся в очередь, каждая за тем, чего её чат уже ждёт. Отправленное раньше второй раз не отправится; бюджет резервируется заново.";
    jobs_retry_confirm: "Put back into the queue", "Вернуть в очередь";
    jobs_hurry: "Try now…", "Сейчас…";
    jobs_hurry_hint: "The chosen jobs get their next attempt at once instead of at its time.", "Следующая попытка выбранных задач будет сразу, а не в своё время.";
    jobs_hurry_confirm: "Try at once", "Попробовать сразу";
    jobs_discard: "Discard…", "Отклонить…";
    jobs_discard_hint: "The chosen jobs will not be tried again, and their senders get no answer. They stay in the list of discarded ones for 30 days and can be put back from there.", "Выбранные задачи больше не будут выполняться, отправители не получат ответа. Ещё 30 дней они видны среди отклонённых, и оттуда их можно вернуть.";
    jobs_discard_confirm: "Discard them", "Отклонить";
    jobs_retried: "{} {} put back into the queue.", "В очередь возвращено: {} {}.";
    jobs_discarded: "{} {} discarded.", "Отклонено: {} {}.";
    jobs_left: "{} left as they were: somebody was faster, or this cannot be done to them.", "Не тронуто: {}. Кто-то успел раньше, или с ними этого сделать нельзя.";

    // Playground
    playground: "Playground", "Площадка";
    playground_with: "Playground with {}", "Площадка: {}";
    playground_user: "Your user record", "Ваша карточка";
    playground_note: "Same intake, limits and model as on Telegram. It costs what it costs there.", "Тот же приём, те же лимиты и модель, что и в Telegram. Стоит столько же.";
    demo_badge: "Demo model", "Демо-модель";
    demo_note: "The built-in demo model answers: no key is set. Intake, queue, limits and sending are the real ones.", "Отвечает встроенная демо-модель: ключ не задан. Приём, очередь, лимиты и отправка настоящие.";
    talk_log: "Messages", "Сообщения";
    talk_empty: "Say something", "Скажите что-нибудь";
    talk_empty_hint: "Or begin with one of the commands below.", "Или начните с одной из команд ниже.";
    talk_input: "Message", "Сообщение";
    talk_placeholder: "Write a message. Enter sends, Shift+Enter breaks the line.", "Напишите сообщение. Enter отправляет, Shift+Enter переносит строку.";
    talk_reload: "Answers appear after a reload.", "Ответы появятся после обновления страницы.";
    send: "Send", "Отправить";
    typing: "The bot is writing", "Бот пишет";
    you: "You", "Вы";

    // API keys
    keys_lead: "Other programs call the models through this deck, as they would OpenAI: with its limits, prices and log.", "Другие программы обращаются к моделям через эту панель, как к OpenAI: с её лимитами, ценами и журналом.";
    keys_none: "No keys yet", "Ключей пока нет";
    keys_none_hint: "Make one below, then point any OpenAI client at this deck.", "Создайте ключ ниже и направьте сюда любой клиент OpenAI.";
    key: "Key", "Ключ";
    key_opens: "Opens", "Открывает";
    key_state: "State", "Состояние";
    key_expires: "Good until", "Действует до";
    key_last_used: "Last used", "Использован";
    key_actions: "Actions", "Действия";
    key_good: "Good", "Действует";
    key_expired: "Expired", "Истёк";
    key_revoked: "Revoked", "Отозван";
    key_revoked_by: "by {}", "кем: {}";
    key_made_by: "made by {}", "создал(а) {}";
    key_all_models: "all models", "все модели";
    key_never: "No end", "Бессрочно";
    key_not_yet: "Not yet", "Ещё нет";
    key_requests: "Its requests", "Его запросы";
    key_revoke: "Revoke…", "Отозвать…";
    key_revoke_label: "Revoke {}", "Отозвать {}";
    key_revoke_hint: "Programs that use this key are refused from now on. A revoked key cannot be brought back.", "Программы с этим ключом сразу получат отказ. Отозванный ключ вернуть нельзя.";
    key_revoke_confirm: "Revoke the key", "Отозвать ключ";
    key_revoked_now: "Revoked. Every replica refuses the key within seconds.", "Отозван. Все реплики откажут ключу за секунды.";
    key_made: "The key for {}", "Ключ для {}";
    key_once: "Copy it now. It is kept nowhere and not shown again.", "Скопируйте сейчас. Он нигде не хранится и больше не будет показан.";
    key_try: "To try it:", "Проверить:";
    key_new: "New key", "Новый ключ";
    key_name: "What it is for", "Для чего он";
    key_name_hint: "A program or a team, such as “search service”.", "Программа или команда, например «сервис поиска».";
    key_lifetime: "Good for", "Срок";
    key_scopes: "Kinds of calls", "Виды запросов";
    key_models: "Only these models", "Только эти модели";
    key_models_hint: "None ticked: every model, also those added later.", "Ничего не отмечено: все модели, и будущие тоже.";
    key_create: "Make the key", "Создать ключ";

    // Requests
    requests_lead: "Every call to a model: who asked, which way it took, what it cost. No texts.", "Каждое обращение к модели: кто спросил, каким путём прошло, сколько стоило. Без текстов.";
    requests_none: "Nothing fits these filters", "Ничего не подходит";
    requests_none_hint: "Calls appear here when they have ended.", "Обращения появляются здесь, когда закончатся.";
    requests_keys_hint: "J and K, or the arrows, go from one to the next; Enter opens, Escape closes.", "J и K или стрелки ведут по строкам; Enter открывает, Escape закрывает.";
    request: "Request", "Запрос";
    request_at: "Time", "Время";
    request_who: "Who", "Кто";
    request_model: "Model", "Модель";
    request_tokens: "Tokens in / out / cached", "Токены: вход / выход / кэш";
    request_cost: "Cost", "Цена";
    request_first: "First token", "Первый токен";
    request_total: "Took", "Заняло";
    request_result: "Result", "Итог";
    request_outcome: "Result", "Итог";
    request_code: "Error code", "Код ошибки";
    request_bot: "Bot", "Бот";
    request_key: "API key", "Ключ API";
    request_user: "User", "Человек";
    request_any: "Any", "Любой";
    request_only_user: "One user", "Один человек";
    request_only_key: "One API key", "Один ключ API";
    request_only_conversation: "One conversation", "Одна переписка";
    request_without: "without this filter", "без этого фильтра";
    request_cached: "From the cache", "Из кэша";
    request_close: "Close", "Закрыть";
    request_none_here: "There is no such request, or it is older than the ledger is kept.", "Такого запроса нет, или он старше, чем хранит журнал.";
    request_tries: "Tries", "Попытки";
    request_answered: "answered", "ответил";
    request_asked_as: "Asked for as", "Запрошена как";
    request_provider: "Provider", "Провайдер";
    request_reasoning: "of these reasoning", "из них рассуждение";
    request_images: "Images", "Картинки";
    request_estimated: "Counted here: the provider did not say.", "Посчитано здесь: провайдер не сообщил.";
    request_prices: "Dollars per million, in / cached / out", "Долларов за миллион: вход / кэш / выход";
    request_felt: "As the asker felt it", "Как ощутил спросивший";
    request_finish: "Finish", "Завершение";
    request_status: "Answered with", "Ответ клиенту";
    request_conversation: "Conversation", "Переписка";

    // Audit
    audit_lead: "Every change and every reading of a private conversation.", "Каждое изменение и каждое чтение частной переписки.";
    audit_actor: "Who", "Кто";
    audit_action: "Action", "Действие";
    any_action: "Any", "Любое";
    audit_target: "Target id", "Id объекта";
    audit_target_search: "Target: id or name", "Объект: id или имя";
    audit_from: "From day (UTC)", "С дня (UTC)";
    audit_to: "To day (UTC)", "По день (UTC)";
    audit_details: "What changed", "Что изменилось";
    audit_origin: "Details", "Подробности";
    audit_none: "Nothing fits these filters", "Ничего не подходит";
    audit_none_hint: "Every action of staff appears here at once.", "Каждое действие сотрудников появляется здесь сразу.";
    ip: "From address", "С адреса";
    diff_label: "Changes field by field", "Изменения по полям";
    diff_field: "Field", "Поле";
    diff_before: "Before", "Было";
    diff_after: "After", "Стало";
}
