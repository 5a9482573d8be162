//! The web edge: probes, sign-in, and every route with every role and with none.

use std::{collections::BTreeSet, time::Duration};

use domain::{Permission, Role};
use serde_json::json;
use test_support::app::{PASSWORD, PATIENCE, Page, Visitor, eventually};

use crate::{anna, app};

const NOBODYS_ID: &str = "01930000-0000-7000-8000-00000000ffff";
const PLAYGROUND: &str = "01930000-0000-7000-8000-0000000000b0";

#[tokio::test]
async fn probes_say_what_is_there() {
    let app = app().start().await;
    let visitor = app.visitor();
    assert_eq!(visitor.get("/healthz").await.body, "ok");
    let ready = visitor.get("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["redis"]),
        (200, &json!(true)),
        "{}",
        ready.body
    );
    app.db.take_away().await;
    eventually(PATIENCE, "not ready without a database", || async {
        let ready = app.visitor().get("/readyz").await;
        if ready.status == 503 {
            Ok(())
        } else {
            Err(format!("{} {}", ready.status, ready.body))
        }
    })
    .await;
    assert_eq!(visitor.get("/healthz").await.status, 200);
    app.db.give_back().await;
    eventually(PATIENCE, "ready again", || async {
        let ready = app.visitor().get("/readyz").await;
        if ready.status == 200 {
            Ok(())
        } else {
            Err(format!("{} {}", ready.status, ready.body))
        }
    })
    .await;
    let anna = anna();
    app.say(&anna, "still there?");
    app.answer(anna.id, "Echo: still there?").await;
    app.finish().await;
}

#[tokio::test]
async fn metrics_are_there_after_traffic() {
    let app = app().with("BOTDECK_METRICS_TOKEN", "let-me-see").start().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    assert_eq!(app.visitor().get("/metrics").await.status, 401);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/metrics", app.base)).bearer_auth("let-me-see");
    let metrics = request.send().await.unwrap().text().await.unwrap();
    for name in [
        "botdeck_updates_total{outcome=\"new\"} 1",
        "botdeck_answers_total{outcome=\"stop\"} 1",
        "botdeck_jobs_total{outcome=\"done\"} 1",
        "botdeck_ai_requests_total{",
        "botdeck_ai_tokens_total{kind=\"completion\"}",
        "botdeck_ai_first_token_seconds_bucket",
        "botdeck_answer_seconds_bucket",
        "botdeck_http_requests_total",
        "botdeck_queue_depth{state=\"waiting\"}",
        "botdeck_redis_up 1",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    app.finish().await;
}

fn code(page: &Page) -> String {
    page.json()["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn signing_in_and_out() {
    let app = app().start().await;
    app.sign_in("owner").await;
    let visitor = app.visitor();
    let door = visitor.page("/users").await;
    assert!(door.status.is_redirection(), "{} {}", door.status, door.body);
    assert!(door.location.unwrap().starts_with("/sign-in?next="));
    let page = visitor.page("/sign-in").await;
    assert_eq!(page.status, 200);
    for field in [
        "name=\"email\"",
        "name=\"password\"",
        "name=\"next\"",
        "action=\"/api/fn/auth/sign-in\"",
        "method=\"post\"",
    ] {
        assert!(page.body.to_lowercase().contains(field), "the form has no {field}");
    }
    // A session id planted before is worth nothing afterwards.
    visitor.set_cookie("botdeck", "AAAAAAAAAAAAAAAAAAAAAA");
    let fields = [
        ("email", "owner@example.org"),
        ("password", PASSWORD),
        ("next", "/users"),
    ];
    let signed_in = visitor.submit("/api/fn/auth/sign-in", &fields).await;
    assert!(signed_in.status.is_redirection(), "{signed_in:?}");
    assert_eq!(signed_in.location.as_deref(), Some("/users"));
    let cookie = signed_in
        .set_cookies
        .iter()
        .find(|cookie| cookie.starts_with("botdeck="))
        .unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "not over http: {cookie}");
    let first = visitor.cookie("botdeck").unwrap();
    assert_ne!(first, "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(visitor.page("/users").await.status, 200);
    // Signing in again gives a new id, and the old one is dead.
    let again = visitor.submit("/api/fn/auth/sign-in", &fields).await;
    assert!(again.status.is_redirection());
    let second = visitor.cookie("botdeck").unwrap();
    assert_ne!(first, second);
    let old = app.visitor();
    old.set_cookie("botdeck", &first);
    assert!(
        old.page("/users").await.status.is_redirection(),
        "the old session id still works"
    );
    // Nor does one survive signing out.
    let out = visitor.submit("/api/fn/auth/sign-out", &[]).await;
    assert_eq!(out.location.as_deref(), Some("/sign-in"), "{out:?}");
    let old = app.visitor();
    old.set_cookie("botdeck", &second);
    assert_eq!(old.get("/api/fn/users/list?search=&status=any").await.status, 401);
    // Only our own pages are gone on to.
    for next in [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
    ] {
        let fields = [("email", "owner@example.org"), ("password", PASSWORD), ("next", next)];
        let page = app.visitor().submit("/api/fn/auth/sign-in", &fields).await;
        assert_eq!(page.location.as_deref(), Some("/"), "next={next}");
    }
    let actions = app
        .sql("SELECT DISTINCT action FROM audit WHERE action LIKE 'staff.sign%' ORDER BY 1")
        .await;
    assert_eq!(
        actions,
        [json!({"action": "staff.sign_in"}), json!({"action": "staff.sign_out"})]
    );
    app.assert_no_secrets().await;
    app.finish().await;
}

#[tokio::test]
async fn behind_https_the_cookie_is_bound_to_the_host() {
    let app = app()
        .without_bot()
        .with("BOTDECK_PUBLIC_URL", "https://deck.example.org")
        .start()
        .await;
    let args = [
        "admin",
        "create",
        "--email",
        "owner@example.org",
        "--role",
        "owner",
        "--password-stdin",
    ];
    app.cli_with(&[], &args, PASSWORD).await.ok();
    let fields = [("email", "owner@example.org"), ("password", PASSWORD), ("next", "/")];
    let page = app
        .visitor()
        .from_origin("https://deck.example.org")
        .submit("/api/fn/auth/sign-in", &fields)
        .await;
    let cookie = page
        .set_cookies
        .iter()
        .find(|cookie| cookie.starts_with("__Host-botdeck="))
        .unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let promised = page.headers["strict-transport-security"].to_str().unwrap();
    assert!(promised.starts_with("max-age=31536000"), "{promised}");
    app.finish().await;
}

#[tokio::test]
async fn what_is_private_is_kept_by_no_browser_and_files_are() {
    let app = app().start().await;
    let owner = app.sign_in("owner").await;
    let missing = format!("/users/{NOBODYS_ID}");
    let kept = async |path: &str| {
        let page = owner.page(path).await;
        assert!(!page.headers.contains_key("strict-transport-security"), "not over http");
        page.headers["cache-control"].to_str().unwrap().to_owned()
    };
    let private = [
        "/",
        "/users",
        &missing,
        "/no-such-page",
        "/api/fn/overview/today",
        "/sign-in",
    ];
    for path in private {
        assert_eq!(kept(path).await, "private, no-store", "{path}");
    }
    // A redirect tells who is signed in, too.
    let door = app.visitor().page("/users").await;
    assert_eq!(door.headers["cache-control"], "private, no-store");
    app.finish().await;
}

#[tokio::test]
async fn who_comes_through_a_proxy_is_told_apart_only_when_that_is_trusted() {
    for trusted in [false, true] {
        let app = app()
            .without_bot()
            .with("BOTDECK_TRUST_PROXY", if trusted { "true" } else { "false" })
            .start()
            .await;
        app.sign_in("owner").await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for _ in 0..2 {
            let request = client
                .post(format!("{}/api/fn/auth/sign-in", app.base))
                .header("x-forwarded-for", "203.0.113.1")
                .header("x-forwarded-for", "203.0.113.2, 203.0.113.3")
                .header("content-type", "application/x-www-form-urlencoded");
            let fields = "email=owner%40example.org&password=wrong+password&next=/";
            assert_eq!(request.body(fields).send().await.unwrap().status(), 401);
        }
        let counted = app
            .sql("SELECT key, failures FROM sign_in_failures WHERE key LIKE 'ip:%'")
            .await;
        let ip = if trusted { "ip:203.0.113.3" } else { "ip:127.0.0.1" };
        assert_eq!(counted, [json!({"key": ip, "failures": 2})]);
        let told = app.logs().matches("BOTDECK_TRUST_PROXY").count();
        assert_eq!(told, usize::from(!trusted), "{}", app.logs());
        app.finish().await;
    }
}

#[tokio::test]
async fn wrong_passwords_are_slowed_down() {
    let app = app().start().await;
    app.sign_in("owner").await;
    let try_in = |email: &'static str, password: &'static str| {
        let visitor = app.visitor();
        async move {
            visitor
                .post(
                    "/api/fn/auth/sign-in",
                    &[("email", email), ("password", password), ("next", "/")],
                )
                .await
        }
    };
    // Unknown and wrong look the same.
    let (unknown, wrong) = (
        try_in("nobody@example.org", "wrong password").await,
        try_in("owner@example.org", "wrong password").await,
    );
    assert_eq!((unknown.status.as_u16(), code(&unknown).as_str()), (401, "BD-LOGIN"));
    assert_eq!((unknown.status, &unknown.body), (wrong.status, &wrong.body));
    let mut throttled = None;
    for attempt in 3..=10 {
        let page = try_in("owner@example.org", "wrong password").await;
        if page.status == 429 {
            throttled = Some((attempt, page));
            break;
        }
    }
    let (attempt, page) = throttled.expect("ten wrong passwords in a row were not slowed down");
    assert!(attempt >= 5, "throttled at attempt {attempt} already");
    assert_eq!(code(&page), "BD-THROTTLED");
    // The right one has to wait as well, and then works.
    assert_eq!(try_in("owner@example.org", PASSWORD).await.status, 429);
    eventually(Duration::from_secs(15), "the right password is taken again", || async {
        let page = try_in("owner@example.org", PASSWORD).await;
        if page.status == 200 { Ok(()) } else { Err(page.body) }
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn the_setup_link_works_once() {
    let app = app().start().await;
    let link = app.setup_link().await;
    let token = link.split("token=").nth(1).unwrap().to_owned();
    let visitor = app.visitor();
    assert_eq!(visitor.page("/").await.location.as_deref(), Some("/setup"));
    assert_eq!(visitor.page(&format!("/setup?token={token}")).await.status, 200);
    let fields = |token: &'static str, email: &'static str| {
        [
            ("token", token),
            ("name", "Ann"),
            ("email", email),
            ("password", PASSWORD),
        ]
    };
    let forged = visitor
        .post("/api/fn/setup/redeem", &fields("forged", "eve@example.org"))
        .await;
    assert_eq!((forged.status.as_u16(), code(&forged).as_str()), (409, "BD-CONFLICT"));
    let token: &'static str = token.leak();
    let made = visitor
        .submit("/api/fn/setup/redeem", &fields(token, "ann@example.org"))
        .await;
    assert_eq!(made.location.as_deref(), Some("/"), "{made:?}");
    assert_eq!(visitor.page("/").await.status, 200);
    let again = app
        .visitor()
        .post("/api/fn/setup/redeem", &fields(token, "eve@example.org"))
        .await;
    assert_eq!(again.status, 409, "the link worked twice");
    let staff = app.sql("SELECT email, role FROM staff").await;
    assert_eq!(staff, [json!({"email": "ann@example.org", "role": "owner"})]);
    assert!(
        !app.db.dump().await.contains(token),
        "the link's token is stored in clear"
    );
    app.finish().await;
}

#[tokio::test]
async fn an_owner_of_the_settings_is_made_once_and_no_link_is_printed() {
    let mut app = app()
        .with("BOTDECK_OWNER_EMAIL", "ann@example.org")
        .with("BOTDECK_OWNER_PASSWORD", PASSWORD)
        .start()
        .await;
    assert!(!app.logs().contains("/setup?token="));
    app.restart().await;
    assert_eq!(app.count("SELECT count(*) AS n FROM staff").await, 1);
    let fields = [("email", "ann@example.org"), ("password", PASSWORD), ("next", "/")];
    assert_eq!(app.visitor().post("/api/fn/auth/sign-in", &fields).await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn changes_asked_for_by_another_site_are_refused() {
    let app = app().start().await;
    let owner = app.sign_in("owner").await;
    let session = owner.cookie("botdeck").unwrap();
    let from = |origin: &str| {
        let visitor = Visitor::new(&app.base).from_origin(origin);
        visitor.set_cookie("botdeck", &session);
        visitor
    };
    for (path, permission) in app::server_functions() {
        for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
            let page = from(origin).post(path, &[]).await;
            assert_eq!(
                (page.status.as_u16(), code(&page).as_str()),
                (403, "BD-ORIGIN"),
                "{path} {permission:?} from {origin}"
            );
        }
    }
    let plan = "01930000-0000-7000-8000-000000000001";
    let user = [("id", NOBODYS_ID), ("plan", plan)];
    assert_eq!(
        from("https://evil.example")
            .post("/api/fn/users/plan", &user)
            .await
            .status,
        403
    );
    // Our own page may, and gets as far as the user who is not there.
    assert_eq!(from(&app.base).post("/api/fn/users/plan", &user).await.status, 404);
    assert_eq!(
        app.count("SELECT count(*) AS n FROM audit WHERE action = 'user.plan'")
            .await,
        0
    );
    app.finish().await;
}

/// Fields that a server function reads before it looks at anything else; ids of nobody, so that nothing is changed.
const FIELDS: &[(&str, &str)] = &[
    ("id", NOBODYS_ID),
    ("plan", NOBODYS_ID),
    ("bot", NOBODYS_ID),
    ("reason", "a reason"),
    ("search", ""),
    ("status", "any"),
    ("token", "1:abc"),
    ("mode", "polling"),
    ("enabled", "true"),
    ("text", "hello"),
    ("name", "A plan"),
    ("list", "dead"),
    ("words", ""),
    ("action", "retry"),
    ("persona", ""),
    ("model", NOBODYS_ID),
    ("provider", NOBODYS_ID),
    ("key", "sk-nobodys"),
    ("query[outcome]", "any"),
    ("saved", "model:0"),
    ("lifetime", "month"),
    ("fields[name]", "A name"),
    ("fields[kind]", "openai"),
    ("fields[base_url]", "http://127.0.0.1:9/v1"),
    ("fields[context_tokens]", "1000"),
    ("fields[max_answer_tokens]", "100"),
    ("owner", "deployment"),
    ("kind", "messages_per_day"),
    ("amount", ""),
    ("email", "eve@example.org"),
    ("password", "not the password"),
    ("next", "/"),
    ("sharing", "off"),
    ("kept_for", "3600"),
    ("similar_by", ""),
    ("similar_from", "0.95"),
    ("lang", "en"),
    ("theme", "dark"),
];

/// Asks a server function by whichever method it has.
async fn call(visitor: &Visitor, path: &str) -> Page {
    let page = visitor.post(path, FIELDS).await;
    if page.status != 405 && page.status != 404 || !code(&page).is_empty() {
        return page;
    }
    let mut url = reqwest::Url::parse("http://x/").unwrap();
    url.query_pairs_mut().extend_pairs(FIELDS);
    visitor.get(&format!("{path}?{}", url.query().unwrap())).await
}

#[tokio::test]
async fn every_server_function_asks_for_its_permission() {
    let app = app().start().await;
    let nobody = app.visitor();
    let mut walked = 0;
    let functions = app::server_functions();
    assert!(functions.len() >= 20);
    for (path, permission) in &functions {
        let page = call(&nobody, path).await;
        assert_ne!(page.status, 405, "{path}");
        match permission {
            Some(_) => assert_eq!(
                (page.status.as_u16(), code(&page).as_str()),
                (401, "BD-SIGNED-OUT"),
                "{path} of nobody: {page:?}"
            ),
            None => assert_ne!(code(&page), "BD-SIGNED-OUT", "{path} is public"),
        }
    }
    for role in Role::ALL {
        let visitor = app.sign_in(role.name()).await;
        for (path, permission) in &functions {
            // These two change who is asking.
            if path.contains("/auth/") {
                continue;
            }
            let page = call(&visitor, path).await;
            match permission {
                Some(permission) if !role.allows(*permission) => assert_eq!(
                    (page.status.as_u16(), code(&page).as_str()),
                    (403, "BD-FORBIDDEN"),
                    "{path} of {role}: {page:?}"
                ),
                _ => {
                    let open = !matches!(page.status.as_u16(), 401 | 403 | 405 | 500);
                    assert!(open, "{path} is refused to {role}: {page:?}");
                }
            }
            walked += 1;
        }
    }
    println!("{walked} calls of {} functions", functions.len());
    app.finish().await;
}

/// The pages, as the router knows them, and what one must be allowed to do there.
const PAGES: [(&str, Option<Permission>); 16] = [
    ("/", Some(Permission::ReadOverview)),
    ("/users", Some(Permission::ReadUsers)),
    ("/users/{id}", Some(Permission::ReadUsers)),
    ("/conversations/{id}", Some(Permission::ReadConversations)),
    ("/plans", Some(Permission::ReadLimits)),
    ("/plans/edit?owner=deployment", Some(Permission::ReadLimits)),
    ("/bots", Some(Permission::ReadBots)),
    ("/bots/{id}/playground", Some(Permission::UsePlayground)),
    ("/bots/{id}/near", Some(Permission::ReadConversations)),
    ("/models", Some(Permission::ReadModels)),
    ("/jobs", Some(Permission::ReadJobs)),
    ("/requests", Some(Permission::ReadRequests)),
    ("/api-keys", Some(Permission::ReadKeys)),
    ("/audit", Some(Permission::ReadAudit)),
    ("/sign-in", None),
    ("/setup", None),
];

#[tokio::test]
async fn the_walk_below_leaves_out_no_page_and_no_route() {
    let pages = leptos_axum::generate_route_list(app::App);
    let pages: BTreeSet<&str> = pages.iter().map(|page| page.path()).collect();
    assert_eq!(
        pages,
        PAGES.iter().map(|(path, _)| path.split('?').next().unwrap()).collect()
    );

    // A router does not tell what is in it, so its source does.
    let source = include_str!("../../src/web/mod.rs");
    let routes: BTreeSet<&str> = source
        .split(".route(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert_eq!(
        routes,
        server::web::ROUTES.iter().map(|(_, path, _)| *path).collect(),
        "server::web::ROUTES"
    );
}

#[tokio::test]
async fn every_page_asks_for_its_permission() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "a very private question");
    app.answer(anna.id, "Echo: a very private question").await;
    app.idle().await;
    let user = app.sql_one("SELECT id FROM users").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let conversation = app.sql_one("SELECT id FROM conversations").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let pages = PAGES.map(|(path, permission)| {
        let id = match path.split('/').nth(1) {
            Some("users") => user.as_str(),
            Some("conversations") => conversation.as_str(),
            _ => PLAYGROUND,
        };
        (path.replace("{id}", id), permission)
    });
    for role in Role::ALL {
        let visitor = app.sign_in(role.name()).await;
        for (path, permission) in &pages {
            let page = visitor.page(path).await;
            let status = page.status.as_u16();
            match permission {
                Some(permission) if !role.allows(*permission) => {
                    assert_eq!(status, 403, "{path} of {role}");
                    assert!(page.body.contains("BD-FORBIDDEN"), "{path} of {role} does not say why");
                    assert!(
                        !page.body.contains("private question"),
                        "{path} of {role} shows what it may not"
                    );
                }
                _ => assert!(
                    !matches!(status, 401 | 403 | 500..),
                    "{path} is refused to {role}: {status}"
                ),
            }
            let policy = page
                .headers
                .get("content-security-policy")
                .and_then(|value| value.to_str().ok());
            let redirected = page.status.is_redirection();
            assert!(
                redirected || policy.is_some_and(|policy| policy.contains("default-src 'none'")),
                "{path}: {policy:?}"
            );
            assert_eq!(
                page.headers.get("x-frame-options").map(|value| value.as_bytes()),
                Some(b"DENY".as_slice())
            );
        }
    }
    let nobody = app.visitor();
    for (path, permission) in &pages {
        let page = nobody.page(path).await;
        if permission.is_some() {
            assert!(page.status.is_redirection(), "{path} of nobody: {}", page.status);
            assert!(
                page.location.as_deref().unwrap().starts_with("/sign-in?next="),
                "{path}: {:?}",
                page.location
            );
            assert!(!page.body.contains("private question"));
        } else {
            assert!(
                page.status.is_success() || page.status.is_redirection(),
                "{path} of nobody: {}",
                page.status
            );
        }
    }
    assert_eq!(nobody.page("/no-such-page").await.status, 404);
    // Each reading of the transcript was recorded.
    let readers = app
        .sql("SELECT count(*) AS n FROM audit WHERE action LIKE 'conversation%'")
        .await;
    assert_eq!(readers[0]["n"], 3, "owner, admin and support have read it: {readers:?}");
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_takes_anything_is_sent_to_the_door_as_well() {
    let app = app()
        .with("BOTDECK_OWNER_EMAIL", "owner@example.org")
        .with("BOTDECK_OWNER_PASSWORD", PASSWORD)
        .start()
        .await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    for (path, _) in PAGES.into_iter().filter(|(_, permission)| permission.is_some()) {
        let path = path.replace("{id}", NOBODYS_ID);
        let answer = client.get(format!("{}{path}", app.base)).send().await.unwrap();
        assert_eq!(answer.status(), 302, "{path}");
        let to = answer.headers()["location"].to_str().unwrap();
        assert!(to.starts_with("/sign-in"), "{path} leads to {to}");
    }
    app.finish().await;
}

#[tokio::test]
async fn every_other_route_asks_for_its_permission() {
    let app = app().start().await;
    let bot = app.bot_id().await;
    let mut visitors = vec![(None, app.visitor())];
    for role in Role::ALL {
        visitors.push((Some(role), app.sign_in(role.name()).await));
    }
    for (method, path, permission) in server::web::ROUTES {
        // The playground is that of the browser's bot; a webhook asks for its own secret, whoever comes.
        let place = if path.contains("playground") {
            PLAYGROUND
        } else {
            bot.as_str()
        };
        let address = path.replace("{bot_id}", place);
        for (role, visitor) in &visitors {
            let status = match *method {
                "GET" => visitor.open(&address).await.as_u16(),
                _ => visitor.post(&address, &[]).await.status.as_u16(),
            };
            let expected = match (permission, role) {
                _ if path.starts_with("/telegram/") => 401,
                (None, _) => 200,
                (Some(_), None) => 401,
                (Some(permission), Some(role)) if !role.allows(*permission) => 403,
                (Some(_), Some(_)) => 200,
            };
            assert_eq!(status, expected, "{method} {path} of {role:?}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn the_playground_answers_through_the_same_pipeline() {
    let app = app().without_bot().without("OPENAI_API_KEY").start().await;
    let owner = app.sign_in("owner").await;
    let sent = owner
        .post("/api/fn/playground/send", &[("bot", PLAYGROUND), ("text", "Hello")])
        .await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let shown = eventually(PATIENCE, "the demo answers", || async {
        let rows = app
            .sql("SELECT body, complete FROM browser_messages WHERE author = 'bot'")
            .await;
        match rows.as_slice() {
            [row] if row["complete"] == true => Ok(row["body"]["text"].as_str().unwrap().to_owned()),
            _ => Err(format!("{rows:?}")),
        }
    })
    .await;
    assert!(shown.to_lowercase().contains("demo"), "{shown}");
    app.idle().await;
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    let page = owner.page(&format!("/bots/{PLAYGROUND}/playground")).await;
    assert!(page.body.contains("Hello"), "the page reads without script");
    app.finish().await;
}
