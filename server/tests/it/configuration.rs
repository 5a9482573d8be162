//! Settings from flags, environment and file, and the command line.

use test_support::app::{BOT_NAME, Ended, KEY, MASTER_KEY, PASSWORD, TOKEN};

use crate::{anna, app};

#[tokio::test]
async fn all_faults_are_told_at_once_and_no_secret_is_shown() {
    let app = app().prepare().await;
    let faults = [
        ("BOTDECK_ADDR", "nowhere"),
        ("BOTDECK_PUBLIC_URL", "deck.example.org"),
        ("DATABASE_URL", "mysql://root:hunter2@db"),
        ("REDIS_URL", "hunter2@redis"),
        ("BOTDECK_SECRET_KEY", "hunter2"),
        ("TELEGRAM_BOT_TOKEN", "hunter2"),
        ("TELEGRAM_API_URL", "telegram"),
        ("OPENAI_BASE_URL", "ftp://ann:hunter2@x"),
        ("OPENAI_API_KEY", "hunter2 ключ"),
        ("OPENAI_MODEL", "x@free"),
        ("BOTDECK_FIRST_TOKEN_SECONDS", "soon"),
        ("BOTDECK_ANSWER_SECONDS", "-1"),
        ("BOTDECK_WORKERS", "0"),
        ("BOTDECK_DB_CONNECTIONS", "none"),
        ("BOTDECK_TRUST_PROXY", "perhaps"),
        ("BOTDECK_OWNER_EMAIL", "ann"),
        ("BOTDECK_OWNER_PASSWORD", "hunter2"),
        ("BOTDECK_LOG_FORMAT", "xml"),
        ("BOTDECK_LOG", "info,bot=shouting"),
        ("BOTDECK_BOT_WORKERS", "all"),
        ("BOTDECK_PROVIDER_CALLS", "0"),
        ("BOTDECK_QUEUE_LIMIT", "-1"),
        ("BOTDECK_LATE_AFTER", "soon"),
        ("BOTDECK_DRAFTS", "perhaps"),
    ];
    for command in [["serve"].as_slice(), &["migrate"], &["doctor"], &["bot", "list"]] {
        let ended = app.cli_with(&faults, command, "").await;
        assert_eq!(ended.code, Some(2), "{command:?}: {ended:?}");
        for (name, _) in faults {
            let told = ended
                .stderr
                .lines()
                .any(|line| line.contains(name) && line.contains("expected "));
            assert!(told, "{name} is not among the faults of {command:?}:\n{}", ended.stderr);
        }
        assert!(
            !ended.text().contains("hunter2"),
            "a secret was shown:\n{}",
            ended.text()
        );
        assert!(ended.stderr.contains("nowhere"), "what is no secret is shown");
    }
    let unset = app
        .cli_with(
            &[
                ("DATABASE_URL", ""),
                ("BOTDECK_SECRET_KEY", ""),
                ("BOTDECK_WORKERS", "0"),
            ],
            &["serve"],
            "",
        )
        .await;
    assert_eq!(unset.code, Some(2));
    for name in ["DATABASE_URL", "BOTDECK_SECRET_KEY", "BOTDECK_WORKERS"] {
        assert!(unset.stderr.contains(name), "{name} is missing in {unset:?}");
    }
    let half = app
        .cli_with(&[("BOTDECK_OWNER_EMAIL", "ann@example.org")], &["serve"], "")
        .await;
    assert_eq!(half.code, Some(2));
    assert!(half.stderr.contains("BOTDECK_OWNER_PASSWORD"), "{half:?}");
    // Each from another place, and all in one report.
    let file = app.dir().join("deck.toml").display().to_string();
    std::fs::write(&file, "botdeck_workers = 0\nbotdeck_adress = \"x\"").unwrap();
    let spread = [
        "--config",
        &file,
        "--set",
        "BOTDECK_DRAFTS=perhaps",
        "--set",
        "hunter2",
        "migrate",
    ];
    let spread = app.cli_with(&[("BOTDECK_TRUST_PROXY", "perhaps")], &spread, "").await;
    assert_eq!(spread.code, Some(2));
    for words in [
        "5 settings are wrong",
        "BOTDECK_WORKERS: ",
        "BOTDECK_ADRESS: ",
        "BOTDECK_DRAFTS: ",
        "BOTDECK_TRUST_PROXY: ",
        "--set: expected NAME=VALUE",
    ] {
        assert!(spread.stderr.contains(words), "{words} is missing in {}", spread.stderr);
    }
    assert!(!spread.text().contains("hunter2"), "{spread:?}");
    for wrong in [
        ["serve", "--roles", "nonsense"],
        ["limits", "show", "--nonsense"],
        ["--set", "BOTDECK_ADRESS=x", "doctor"],
    ] {
        assert_eq!(app.cli(&wrong).await.code, Some(2), "{wrong:?}");
    }
    let settings = app.cli(&["settings"]).await.ok().stdout;
    for (name, _) in faults {
        assert!(settings.contains(name), "botdeck settings does not list {name}");
    }
    app.finish().await;
}

#[test]
fn what_is_no_text_in_the_environment_is_a_fault_only_where_it_is_a_setting() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |start: &str| std::ffi::OsString::from_vec([start.as_bytes(), b"hunter2\xff"].concat());
    let run = |name: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_botdeck"));
        command.env_clear().env(name, bytes("")).arg("doctor");
        let ended = command.output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (code, said) = run("SOME_OTHER_PROGRAM");
    assert_eq!(
        code,
        Some(1),
        "without a database there is something to be told: {said}"
    );
    let (code, said) = run("OPENAI_API_KEY");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("OPENAI_API_KEY: expected text") && !said.contains("hunter2"),
        "{said}"
    );
}

#[tokio::test]
async fn keys_come_from_a_file_and_a_rotation_comes_to_an_end() {
    let mut app = app().start().await;
    app.stop().await;
    let file = app.dir().join("keys");
    let path = file.display().to_string();
    let new = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let of_file = [
        ("BOTDECK_SECRET_KEY", ""),
        ("BOTDECK_SECRET_KEY_FILE", path.as_str()),
        ("TELEGRAM_BOT_TOKEN", ""),
    ];
    // The bot that is stored can be opened: by an old key of the list before the start, by the new one alone after it.
    let opens = async || {
        let ended = app.cli_with(&of_file, &["doctor"], "").await;
        let line = ended.stdout.lines().find(|line| line.contains("telegram"));
        line.unwrap_or_default().starts_with("ok")
    };
    std::fs::write(&file, new).unwrap();
    assert!(!opens().await, "the new key has not sealed it yet");
    std::fs::write(&file, format!("{new}\n{MASTER_KEY}\n")).unwrap();
    assert!(opens().await);
    drop(app.replica(&of_file, &[]).await);
    std::fs::write(&file, new).unwrap();
    assert!(opens().await, "a start has sealed it with the new key");

    std::fs::remove_file(&file).unwrap();
    let unreadable = app.cli_with(&of_file, &["doctor"], "").await;
    assert_eq!(unreadable.code, Some(2));
    assert!(
        unreadable
            .stderr
            .contains("BOTDECK_SECRET_KEY_FILE: expected a readable file"),
        "{unreadable:?}"
    );
    assert!(
        !unreadable.text().contains(&path),
        "it may be the key itself: {unreadable:?}"
    );
    app.finish().await;
}

#[tokio::test]
async fn settings_come_from_flags_environment_and_file() {
    let mut app = app().without("OPENAI_MODEL").prepare().await;
    let file = app.dir().join("deck.toml");
    std::fs::write(
        &file,
        "openai_model = \"from-file\"\nbotdeck_workers = 3\nbotdeck_trust_proxy = true\n",
    )
    .unwrap();
    let file = file.display().to_string();
    app.cli(&["--config", &file, "migrate"]).await.ok();
    // A file's fault counts like any other, and the environment wins over the file.
    let model = |ended: Ended| {
        let line = ended
            .stdout
            .lines()
            .find(|line| line.contains("model"))
            .unwrap_or_default()
            .to_owned();
        (ended.code, line)
    };
    app.provider
        .offer_models(&["from-file", "from-environment", "from-flag"]);
    let doctor = |set: &'static [(&'static str, &'static str)], flags: &'static [&'static str]| {
        let args = [&["--config", file.as_str(), "doctor"], flags].concat();
        let app = &app;
        async move { app.cli_with(set, &args, "").await }
    };
    let (_, line) = model(doctor(&[], &[]).await);
    assert!(line.contains("from-file"), "{line}");
    let (_, line) = model(doctor(&[("OPENAI_MODEL", "from-environment")], &[]).await);
    assert!(line.contains("from-environment"), "{line}");
    let flags: &[&str] = &["--set", "OPENAI_MODEL=from-flag"];
    let (_, line) = model(doctor(&[("OPENAI_MODEL", "from-environment")], flags).await);
    assert!(line.contains("from-flag"), "{line}");
    for (text, words) in [
        ("botdeck_adress = \"x\"", "BOTDECK_ADRESS"),
        ("botdeck_workers = \"many\"", "BOTDECK_WORKERS"),
        ("openai_api_key = \"hunter2", "TOML"),
        ("openai_api_key = [\"hunter2\"]", "openai_api_key"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ended = app.cli(&["--config", &file, "doctor"]).await;
        assert_eq!(ended.code, Some(2), "{text}: {ended:?}");
        assert!(
            ended.stderr.contains(words) && !ended.text().contains("hunter2"),
            "{text}: {ended:?}"
        );
    }
    assert_eq!(app.cli(&["--config", "/nowhere.toml", "doctor"]).await.code, Some(2));
    // Figures that anybody can read are told of once anybody can come.
    let public = ("BOTDECK_PUBLIC_URL", "https://deck.example.org");
    for (set, told) in [
        (vec![], false),
        (vec![public], true),
        (vec![public, ("BOTDECK_METRICS_TOKEN", "let-me-see")], false),
    ] {
        let ended = app.cli_with(&set, &["doctor"], "").await;
        assert_eq!(ended.stdout.contains("BOTDECK_METRICS_TOKEN"), told, "{ended:?}");
    }
    // botdeck.toml in the working directory is read by itself.
    std::fs::write(app.dir().join("botdeck.toml"), "botdeck_workers = \"many\"").unwrap();
    assert!(app.cli(&["doctor"]).await.stderr.contains("BOTDECK_WORKERS"));
    std::fs::remove_file(app.dir().join("botdeck.toml")).unwrap();
    app.start().await;
    app.finish().await;
}

#[tokio::test]
async fn doctor_names_what_is_wrong_and_what_to_do() {
    let app = app().prepare().await;
    let good = app.cli(&["doctor"]).await;
    assert_eq!(good.code, Some(0), "{}", good.text());
    for what in ["database", "redis", "telegram", "model", "clock", "disk", "secret key"] {
        let line = good.stdout.lines().find(|line| line.contains(what));
        assert!(
            line.is_some_and(|line| line.starts_with("ok")),
            "{what}: {}",
            good.stdout
        );
    }
    assert!(good.stdout.contains("@deck_bot") && good.stdout.contains("fake-model"));
    // What could be better is no failure.
    let less = [("REDIS_URL", ""), ("TELEGRAM_BOT_TOKEN", ""), ("OPENAI_API_KEY", "")];
    let notes = app.cli_with(&less, &["doctor"], "").await;
    assert_eq!(notes.code, Some(0), "{}", notes.text());
    for what in ["redis", "telegram", "model"] {
        let line = notes.stdout.lines().find(|line| line.contains(what));
        assert!(
            line.is_some_and(|line| line.starts_with("note")),
            "{what}: {}",
            notes.stdout
        );
    }
    for (name, value, what) in [
        ("TELEGRAM_BOT_TOKEN", "99:wrong-token", "telegram"),
        ("TELEGRAM_API_URL", "http://127.0.0.1:1", "telegram"),
        ("OPENAI_API_KEY", "sk-wrong-key", "model"),
        ("OPENAI_MODEL", "no-such-model", "model"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1", "model"),
        ("REDIS_URL", "redis://:hunter2@127.0.0.1:1", "redis"),
        ("DATABASE_URL", "postgres://app:hunter2@127.0.0.1:1/x", "database"),
        ("BOTDECK_SECRET_KEY", "", "secret key"),
    ] {
        let bad = app.cli_with(&[(name, value)], &["doctor"], "").await;
        assert_eq!(bad.code, Some(1), "{name}={value}: {}", bad.text());
        let mut lines = bad.stdout.lines().skip_while(|line| !line.contains(what));
        assert!(
            lines.next().is_some_and(|line| line.starts_with("BAD")),
            "{what}: {}",
            bad.stdout
        );
        assert!(
            lines.next().is_some_and(|line| line.contains('→')),
            "no advice: {}",
            bad.stdout
        );
        for secret in ["hunter2", "wrong-token", "sk-wrong-key", TOKEN, KEY] {
            assert!(
                !bad.text().contains(secret),
                "{name}: a secret was shown:\n{}",
                bad.text()
            );
        }
        // One fault hides no other finding.
        assert!(bad.stdout.contains("disk"), "{}", bad.stdout);
    }
    app.finish().await;
}

#[tokio::test]
async fn staff_bots_and_limits_are_governed_by_commands() {
    let app = app().without_bot().start().await;
    // Staff.
    let owner = app.sign_in("owner").await;
    assert_eq!(owner.page("/").await.status, 200);
    let create = [
        "admin",
        "create",
        "--email",
        "owner@example.org",
        "--role",
        "admin",
        "--password-stdin",
    ];
    let twice = app.cli_with(&[], &create, PASSWORD).await;
    assert_eq!(twice.code, Some(1), "{twice:?}");
    let short = [
        "admin",
        "create",
        "--email",
        "b@example.org",
        "--role",
        "admin",
        "--password-stdin",
    ];
    assert_eq!(app.cli_with(&[], &short, "short").await.code, Some(1));
    for wrong in [
        ["--email", "nobody", "--role", "admin"],
        ["--email", "c@example.org", "--role", "king"],
    ] {
        let args = [["admin", "create"].as_slice(), &wrong, &["--password-stdin"]].concat();
        assert_eq!(app.cli_with(&[], &args, PASSWORD).await.code, Some(2), "{args:?}");
    }
    let reset = [
        "admin",
        "reset-password",
        "--email",
        "owner@example.org",
        "--password-stdin",
    ];
    app.cli_with(&[], &reset, "a new and better password\n").await.ok();
    let sign_in = |password: &'static str| {
        let visitor = app.visitor();
        async move {
            let fields = [("email", "owner@example.org"), ("password", password), ("next", "/")];
            visitor.post("/api/fn/auth/sign-in", &fields).await.status.as_u16()
        }
    };
    assert_eq!(sign_in(PASSWORD).await, 401);
    assert_eq!(sign_in("a new and better password").await, 200);
    let nobody = [
        "admin",
        "reset-password",
        "--email",
        "nobody@example.org",
        "--password-stdin",
    ];
    assert_eq!(app.cli_with(&[], &nobody, PASSWORD).await.code, Some(1));

    // Bots.
    assert_eq!(app.cli(&["bot", "add", "--token-env", "NOT_THERE"]).await.code, Some(1));
    let wrong = app
        .cli_with(
            &[("MY_TOKEN", "99:wrong-token")],
            &["bot", "add", "--token-env", "MY_TOKEN"],
            "",
        )
        .await;
    assert!(
        wrong.code == Some(1) && !wrong.text().contains("wrong-token"),
        "{wrong:?}"
    );
    let mistaken = app.cli(&["bot", "add", "--token-env", "99:wrong-token"]).await;
    assert!(
        mistaken.code == Some(1) && mistaken.stderr.contains("--token-env"),
        "{mistaken:?}"
    );
    assert!(!mistaken.text().contains("wrong-token"), "{mistaken:?}");
    let no_address = ["bot", "add", "--token-env", "MY_TOKEN", "--mode", "webhook"];
    assert_eq!(
        app.cli_with(&[("MY_TOKEN", TOKEN)], &no_address, "").await.code,
        Some(1)
    );
    let added = app
        .cli_with(&[("MY_TOKEN", TOKEN)], &["bot", "add", "--token-env", "MY_TOKEN"], "")
        .await
        .ok();
    assert!(added.stdout.contains("@deck_bot"), "{added:?}");
    // The running process sees it within a few seconds.
    app.wait_listening().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    let list = app.cli(&["bot", "list"]).await.ok().stdout;
    let line = list.lines().find(|line| line.contains("@deck_bot")).unwrap();
    assert!(line.contains(BOT_NAME) && line.contains("running"), "{list}");
    assert!(!list.contains(TOKEN));
    // The doctor looks at the bots of the dashboard, too.
    let telegram = |ended: Ended| {
        let line = ended.stdout.lines().find(|line| line.contains("telegram"));
        line.map(str::to_owned).unwrap_or_default()
    };
    let good = telegram(app.cli(&["doctor"]).await.ok());
    assert!(good.starts_with("ok") && good.contains("@deck_bot"), "{good}");
    let other_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let sealed = app
        .cli_with(&[("BOTDECK_SECRET_KEY", other_key)], &["doctor"], "")
        .await;
    assert_eq!(sealed.code, Some(1));
    let sealed = telegram(sealed);
    assert!(sealed.starts_with("BAD") && sealed.contains(BOT_NAME), "{sealed}");
    app.telegram.revoke(TOKEN);
    let revoked = telegram(app.cli(&["doctor"]).await);
    assert!(
        revoked.starts_with("BAD") && revoked.contains("does not know"),
        "{revoked}"
    );

    // Limits.
    let show = app.cli(&["limits", "show"]).await.ok().stdout;
    assert!(
        show.contains("free (default), 1 users") && show.contains("messages_per_day=200"),
        "{show}"
    );
    let set = [
        "limits",
        "set",
        "free",
        "messages_per_day=7",
        "money_per_month=2.50",
        "tokens_per_day=none",
    ];
    app.cli(&set).await.ok();
    let show = app.cli(&["limits", "show"]).await.ok().stdout;
    let free: Vec<&str> = show
        .lines()
        .skip_while(|line| !line.starts_with("free"))
        .skip(1)
        .take(4)
        .map(str::trim)
        .collect();
    assert_eq!(
        free,
        [
            "messages_per_minute=20",
            "messages_per_day=7",
            "tokens_per_day=none",
            "money_per_month=2.50"
        ]
    );
    for wrong in [
        ["nobody", "messages_per_day=1"],
        ["free", "messages_per_day"],
        ["free", "messages_per_day="],
        ["free", "messages_per_day=-1"],
        ["free", "messages_per_day=many"],
        ["free", "messages_per_year=1"],
        ["free", "money_per_month=1.2.3"],
    ] {
        let ended = app.cli(&["limits", "set", wrong[0], wrong[1]]).await;
        assert_ne!(ended.code, Some(0), "{wrong:?} was taken");
        assert!(!ended.stderr.trim().is_empty());
    }
    // All or nothing.
    app.cli(&["limits", "set", "free", "messages_per_day=9", "tokens_per_day=x"])
        .await;
    assert!(app.cli(&["limits", "show"]).await.stdout.contains("messages_per_day=7"));
    let actions: Vec<String> = app
        .sql("SELECT DISTINCT action FROM audit WHERE actor = 'command line' ORDER BY 1")
        .await
        .iter()
        .map(|row| row["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions.len(), 4, "{actions:?}");
    // Of others than plans, and where a day begins.
    app.cli(&["limits", "set", "free", "tokens_total=9", "soft=50"])
        .await
        .ok();
    app.cli(&["limits", "set", "--model", "gpt-4o", "images_per_day=0"])
        .await
        .ok();
    let deployment = ["limits", "set", "--deployment", "money_per_day=5", "zone=Europe/Berlin"];
    app.cli(&deployment).await.ok();
    let show = app.cli(&["limits", "show"]).await.ok().stdout;
    for shown in [
        "\n  tokens_total=9\n  soft=50\n",
        "\ndeployment\n  money_per_day=5.00\n  zone=Europe/Berlin\n",
        "\nmodel gpt-4o\n  images_per_day=0\n",
    ] {
        assert!(show.contains(shown), "{shown:?} is missing in {show}");
    }
    for wrong in [
        ["--deployment", "zone=Europe/Atlantis"],
        ["--deployment", "soft=0"],
        ["--deployment", "money_per_day"],
        ["--user=01930000-0000-7000-8000-00000000dead", "money_per_day=1"],
        ["--bot=nonsense", "money_per_day=1"],
    ] {
        let ended = app.cli(&["limits", "set", wrong[0], wrong[1]]).await;
        assert_ne!(ended.code, Some(0), "{wrong:?} was taken");
        assert!(!ended.stderr.trim().is_empty());
    }
    app.assert_no_secrets().await;
    app.finish().await;
}

#[tokio::test]
async fn audit_verify_finds_what_was_changed_removed_or_added() {
    let app = app().start().await;
    for day in 1..=4 {
        app.cli(&["limits", "set", "free", &format!("messages_per_day={day}")])
            .await
            .ok();
    }
    let whole = app.cli(&["audit", "verify"]).await.ok().stdout;
    assert!(whole.contains("whole"), "{whole}");
    let last = app.count("SELECT max(id) AS n FROM audit").await;
    let row = app
        .sql_one(&format!("SELECT * FROM audit WHERE id = {}", last - 1))
        .await;
    let restore = format!(
        "INSERT INTO audit SELECT * FROM jsonb_populate_record(NULL::audit, '{}'::jsonb)",
        row.to_string().replace('\'', "''")
    );
    for (spoil, mend) in [
        (
            format!("UPDATE audit SET actor = 'somebody else' WHERE id = {}", last - 1),
            format!("UPDATE audit SET actor = 'command line' WHERE id = {}", last - 1),
        ),
        (
            format!(
                "UPDATE audit SET after = jsonb_set(after, '{{x}}', '1') WHERE id = {}",
                last - 1
            ),
            format!("UPDATE audit SET after = after - 'x' WHERE id = {}", last - 1),
        ),
        (format!("DELETE FROM audit WHERE id = {}", last - 1), restore),
        (
            format!("UPDATE audit SET at = at + interval '1 second' WHERE id = {last}"),
            format!("UPDATE audit SET at = at - interval '1 second' WHERE id = {last}"),
        ),
    ] {
        assert_eq!(app.sql_execute(&spoil).await, 1, "{spoil}");
        let broken = app.cli(&["audit", "verify"]).await;
        assert_eq!(broken.code, Some(1), "{spoil}: {broken:?}");
        assert!(broken.stdout.contains("broken"), "{broken:?}");
        assert_eq!(app.sql_execute(&mend).await, 1, "{mend}");
        app.cli(&["audit", "verify"]).await.ok();
    }
    // The last row cannot be cut off unnoticed, nor can somebody without the key write one.
    app.sql_execute(&format!("DELETE FROM audit WHERE id = {last}")).await;
    assert_eq!(app.cli(&["audit", "verify"]).await.code, Some(1));
    app.finish().await;
}
