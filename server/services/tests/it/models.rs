use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use domain::{ErrorCode, ModelId, ModelKind, Money, Permission, Price, ProviderId, ProviderKind, Role};
use gateway::{Answer, BreakerRules, BreakerState, ChatRequest, Deadlines, Role as Speaker, Turn};
use secrecy::SecretString;
use services::{
    Actor, Error, Services,
    models::{AliasForm, FromSettings, ModelForm, ProviderForm},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::{app::App, calls::until};

const KEY: &str = "sk-live-0123456789abcdef";

fn provider(name: &str) -> ProviderForm {
    ProviderForm {
        name: name.to_owned(),
        kind: ProviderKind::OpenAi,
        base_url: "http://127.0.0.1:9/v1/".to_owned(),
        organisation: None,
        max_concurrent: Some(3),
        enabled: true,
        proxy: None,
        headers: Some("X-Team: s3cret".to_owned().into()),
    }
}

fn model(name: &str, input: &str) -> ModelForm {
    ModelForm {
        name: name.to_owned(),
        kind: ModelKind::Chat,
        context_tokens: 8000,
        max_answer_tokens: 1000,
        enabled: true,
        price: Price {
            input: input.parse().unwrap(),
            ..Price::default()
        },
    }
}

/// One that can make HTTP clients.
async fn deck() -> App {
    let _ = rustls::crypto::ring::default_provider().install_default();
    App::new().await
}

/// A provider with one model, as staff make them.
async fn added(app: &App, name: &str) -> (Actor, ProviderId, ModelId) {
    let owner = app.owner().await;
    let key = Some(SecretString::from(KEY));
    let id = app
        .models()
        .save_provider(&owner, None, provider(name), key)
        .await
        .unwrap();
    let model = app
        .models()
        .save_model(&owner, id, None, model("m-1", "1.5"))
        .await
        .unwrap();
    (owner, id, model)
}

fn settings(models: &str, key: &str) -> FromSettings {
    FromSettings {
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        key: key.to_owned().into(),
        models: gateway::parse_models(models).unwrap(),
    }
}

#[tokio::test]
async fn what_staff_add_is_asked_here_at_once_and_on_other_replicas_at_their_next_look() {
    let app = deck().await;
    let other = app.replica(&app.secret);
    other.models().refresh().await.unwrap();
    assert!(other.gateway().is_demo(), "there is nothing else yet");
    let (owner, ..) = added(&app, "home").await;
    for deck in [&*app, &other] {
        let _ = deck.models().refresh().await.unwrap();
        assert_eq!(deck.gateway().default_model().name, "m-1");
        assert_eq!(
            deck.gateway().model("m-1").unwrap().input_per_million,
            "1.5".parse().unwrap()
        );
        let states = deck.gateway().states();
        assert_eq!(
            (states.len(), states[0].name.as_str(), states[0].keys.len()),
            (1, "home", 1)
        );
    }
    assert!(!other.models().refresh().await.unwrap(), "nothing has changed since");
    let board = app.models().board(&owner).await.unwrap();
    assert!(!board.is_demo);
    assert_eq!(board.providers[0].base_url, "http://127.0.0.1:9/v1");
    assert_eq!(board.aliases[0].tiers[0][0].provider, "home");
}

#[tokio::test]
async fn secrets_are_sealed_and_shown_to_nobody() {
    let app = deck().await;
    let (owner, ..) = added(&app, "home").await;
    let board = app.models().board(&owner).await.unwrap();
    assert_eq!(board.providers[0].headers, ["x-team"]);
    assert_eq!(board.providers[0].keys[0].hint, "sk-…cdef");
    let shown = serde_json::to_string(&board).unwrap();
    for secret in [KEY, "s3cret"] {
        assert!(!shown.contains(secret));
        for table in ["providers", "provider_keys", "audit"] {
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            let dump = format!("{table} WHERE {table}::text LIKE '%{secret}%' OR {table}::text LIKE '%{hex}%'");
            assert_eq!(app.test.count(&dump).await, 0, "{secret} in {table}");
        }
    }
    // Another key ring opens none of it, and the deck goes on with what is left.
    let stranger = app.replica(&services::KeyRing::generate());
    stranger.models().refresh().await.unwrap();
    assert!(stranger.gateway().is_demo());
}

#[tokio::test]
async fn each_change_is_in_the_trail_and_a_price_keeps_its_past() {
    let app = deck().await;
    let (owner, id, model_id) = added(&app, "home").await;
    app.clock.advance(TimeDelta::seconds(60));
    let models = app.models();
    models
        .save_model(&owner, id, Some(model_id), model("m-1", "2"))
        .await
        .unwrap();
    models
        .save_model(&owner, id, Some(model_id), model("m-1", "2"))
        .await
        .unwrap();
    let board = models.board(&owner).await.unwrap();
    let prices = board.providers[0].models[0].prices.iter();
    let prices: Vec<Money> = prices.map(|row| row.price.input).collect();
    assert_eq!(
        prices,
        ["2".parse().unwrap(), "1.5".parse().unwrap()],
        "newest first, none twice"
    );
    assert_eq!(app.gateway().model("m-1").unwrap().input_per_million, prices[0]);
    let second = models.save_model(&owner, id, None, model("m-2", "1")).await.unwrap();
    let form = AliasForm {
        name: "smart".to_owned(),
        shown: true,
        targets: vec![(0, model_id, 3), (0, second, 1)],
    };
    models.save_alias(&owner, form).await.unwrap();
    models.raise_alias(&owner, "smart").await.unwrap();
    let names: Vec<String> = app.gateway().models().iter().map(|model| model.name.clone()).collect();
    assert_eq!(names, ["m-1", "smart", "m-2"]);
    models.remove_alias(&owner, "smart").await.unwrap();
    models.remove_model(&owner, second).await.unwrap();
    models.remove_provider(&owner, id).await.unwrap();
    assert!(app.gateway().is_demo(), "nobody is left to ask");
    let actions: Vec<String> = app
        .test
        .one("SELECT array_agg(action ORDER BY id) FROM audit WHERE target_kind IN ('provider', 'model', 'alias')")
        .await;
    assert_eq!(
        actions,
        [
            "provider.add",
            "model.add",
            "model.edit",
            "model.add",
            "alias.add",
            "alias.order",
            "alias.remove",
            "model.remove",
            "provider.remove"
        ]
    );
}

#[tokio::test]
async fn keys_are_for_those_who_may_write_secrets() {
    let app = deck().await;
    let (_, id, _) = added(&app, "home").await;
    let support = app.staff(Role::Support).await;
    let support = app.actor(support, Permission::ReadModels).await.unwrap();
    let refused = app.models().add_key(&support, id, KEY.to_owned().into()).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let with_key = app
        .models()
        .save_provider(&support, None, provider("other"), Some(KEY.to_owned().into()))
        .await;
    assert!(matches!(with_key, Err(Error::Forbidden(_))), "{with_key:?}");
}

#[tokio::test]
async fn the_provider_of_the_settings_follows_them_and_prices_of_staff_stay() {
    let app = deck().await;
    let owner = app.owner().await;
    let models = app.models();
    models
        .ensure_from_settings(Some(settings("a@1/2,b@1/2", KEY)))
        .await
        .unwrap();
    let names = || -> Vec<String> { app.gateway().models().iter().map(|model| model.name.clone()).collect() };
    assert_eq!(names(), ["a", "b"]);
    let trail = app.test.count("audit").await;
    models
        .ensure_from_settings(Some(settings("a@1/2,b@1/2", KEY)))
        .await
        .unwrap();
    assert_eq!(app.test.count("audit").await, trail, "nothing was different");

    // Staff put the other one first and change a price; the same settings undo neither.
    models.raise_alias(&owner, "b").await.unwrap();
    let board = models.board(&owner).await.unwrap();
    let (provider, a) = (board.providers[0].id, board.providers[0].models[0].id);
    app.clock.advance(TimeDelta::seconds(60));
    models
        .save_model(&owner, provider, Some(a), model("a", "9"))
        .await
        .unwrap();
    models
        .ensure_from_settings(Some(settings("a@1/2,b@1/2", "sk-another-0123456789")))
        .await
        .unwrap();
    assert_eq!(names(), ["b", "a"]);
    assert_eq!(
        app.gateway().model("a").unwrap().input_per_million,
        "9".parse().unwrap()
    );
    assert_eq!(
        models.board(&owner).await.unwrap().providers[0].keys.len(),
        1,
        "the old key is forgotten"
    );
    assert!(matches!(
        models.remove_provider(&owner, provider).await,
        Err(Error::Conflict(_))
    ));

    // Other settings are meant.
    models.ensure_from_settings(Some(settings("c,a", KEY))).await.unwrap();
    assert_eq!(names(), ["c", "a"]);
    models.ensure_from_settings(None).await.unwrap();
    assert!(app.gateway().is_demo(), "without a key the demo answers");
}

#[tokio::test]
async fn a_model_behind_a_name_is_asked_earlier_step_by_step_and_the_trail_says_so() {
    let app = deck().await;
    let (owner, id, first) = added(&app, "home").await;
    let models = app.models();
    let second = models.save_model(&owner, id, None, model("m-2", "1")).await.unwrap();
    let third = models.save_model(&owner, id, None, model("m-3", "1")).await.unwrap();
    let form = AliasForm {
        name: "smart".to_owned(),
        shown: true,
        targets: vec![(0, first, 1), (1, second, 1), (2, third, 2)],
    };
    models.save_alias(&owner, form).await.unwrap();
    let way = async || {
        let board = models.board(&owner).await.unwrap();
        let alias = board.aliases.into_iter().find(|alias| alias.name == "smart").unwrap();
        let tiers = alias.tiers.into_iter();
        let tiers = tiers.map(|tier| {
            tier.into_iter()
                .map(|target| target.name)
                .collect::<Vec<_>>()
                .join(", ")
        });
        tiers.collect::<Vec<_>>().join(" → ")
    };
    models.raise_target(&owner, "smart", third).await.unwrap();
    assert_eq!(way().await, "m-1 → m-3 → m-2");
    models.raise_target(&owner, "smart", third).await.unwrap();
    assert_eq!(way().await, "m-3 → m-1 → m-2");
    models.raise_target(&owner, "smart", third).await.unwrap();
    let last: (serde_json::Value, i64) = (
        app.test
            .one("SELECT jsonb_build_array(before->'leads_to', after->'leads_to') FROM audit ORDER BY id DESC LIMIT 1")
            .await,
        app.test.count("audit WHERE action = 'alias.edit'").await,
    );
    let moved = serde_json::json!(["home/m-1 → home/m-3 → home/m-2", "home/m-3 → home/m-1 → home/m-2"]);
    assert_eq!(last, (moved, 2), "what is first already leaves no trace");
    // Of those that share a place one is asked before the others.
    let form = AliasForm {
        name: "smart".to_owned(),
        shown: true,
        targets: vec![(0, first, 1), (0, second, 1), (1, third, 2)],
    };
    models.save_alias(&owner, form).await.unwrap();
    models.raise_target(&owner, "smart", second).await.unwrap();
    assert_eq!(way().await, "m-2 → m-1 → m-3");
    let unknown = models
        .raise_target(&owner, "smart", ModelId(uuid::Uuid::now_v7()))
        .await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

/// The address of a server that says `fine`, if it answers at all.
async fn server(answers: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            if !answers.load(Ordering::Relaxed) {
                silent.push(tcp);
                continue;
            }
            let mut request = Vec::new();
            while !request.ends_with(b"}") && tcp.read_buf(&mut request).await.unwrap() > 0 {}
            let event = r#"{"choices":[{"delta":{"content":"fine"},"finish_reason":"stop"}]}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let answer = format!("{head}data: {event}\n\ndata: [DONE]\n\n");
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

async fn ask(services: &Services) -> Answer {
    let request = ChatRequest {
        model: "m-1".to_owned(),
        messages: vec![Turn {
            role: Speaker::User,
            text: "hi".to_owned(),
        }],
        max_tokens: 10,
        user: String::new(),
    };
    let cancel = CancellationToken::new();
    services.gateway().answer(&request, &cancel, |_| {}).await
}

#[tokio::test]
async fn a_provider_that_one_replica_saw_hang_is_left_alone_by_all_until_one_sees_it_well() {
    let app = deck().await;
    let answers = Arc::new(AtomicBool::new(false));
    let owner = app.owner().await;
    let form = ProviderForm {
        base_url: server(Arc::clone(&answers)).await,
        ..provider("home")
    };
    let models = app.models();
    let id = models
        .save_provider(&owner, None, form, Some(SecretString::from(KEY)))
        .await
        .unwrap();
    models.save_model(&owner, id, None, model("m-1", "1")).await.unwrap();
    let deadlines = Deadlines {
        first_token: Duration::from_millis(200),
        ..Deadlines::default()
    };
    let replica = async |first: Duration| {
        let rules = BreakerRules {
            in_a_row: 1,
            first,
            ..BreakerRules::default()
        };
        let services = app.asking(deadlines, rules);
        services.models().refresh().await.unwrap();
        let events = services.clone();
        tokio::spawn(async move { events.models().spread_breakers().await });
        tokio::task::yield_now().await;
        services
    };
    let state = |services: &Services| services.gateway().states()[0].state;
    let code = |answer: Answer| answer.failure.map(|failure| failure.code());
    let (first, second) = (
        replica(Duration::from_secs(60)).await,
        replica(Duration::from_secs(60)).await,
    );
    // It finds out at once whether the provider is well again, and is not told of what others saw.
    let third = replica(Duration::ZERO).await;
    assert_eq!(code(ask(&third).await), Some(ErrorCode::AiTimeout));
    assert_eq!(code(ask(&first).await), Some(ErrorCode::AiTimeout));
    until(&app, "breakers WHERE until > changed_at", 1).await;

    second.models().refresh().await.unwrap();
    assert_eq!(state(&second), BreakerState::Open);
    let answer = ask(&second).await;
    assert!(
        answer.tries.is_empty() && answer.total < deadlines.first_token,
        "nobody waits for it"
    );
    assert_eq!(code(answer), Some(ErrorCode::AiTimeout));

    answers.store(true, Ordering::Relaxed);
    assert_eq!(ask(&third).await.text, "fine");
    until(&app, "breakers", 0).await;
    second.models().refresh().await.unwrap();
    assert_eq!(state(&second), BreakerState::Closed);
    assert_eq!(ask(&second).await.text, "fine");
    // What a replica saw itself it finds out itself.
    first.models().refresh().await.unwrap();
    assert_eq!(state(&first), BreakerState::Open);
}
