use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use domain::{
    ErrorCode, ModelId, ModelKind, Money, Permission, Price, ProviderId, ProviderKind, Role,
    views::models::{BreakerState, Change, TestedBy},
};
use gateway::{Answer, BreakerRules, ChatRequest, Deadlines, GatewayError, SharedBreaker, Turn};
use secrecy::SecretString;
use serde_json::json;
use services::{
    Actor, Error, Services,
    models::{AliasForm, FromSettings, ModelForm, ProviderForm},
};
use test_support::fake_provider::{FakeProvider, ProviderFault};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::{app::App, calls::until};

pub(crate) const KEY: &str = "sk-live-0123456789abcdef";

pub(crate) fn provider(name: &str) -> ProviderForm {
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

pub(crate) fn model(name: &str, input: &str) -> ModelForm {
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
pub(crate) async fn deck() -> App {
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
        .unwrap()
        .id;
    let model = app
        .models()
        .save_model(&owner, id, None, model("m-1", "1.5"))
        .await
        .unwrap()
        .id;
    (owner, id, model)
}

/// Another provider, with one embedding model.
async fn added_embeddings(app: &App, owner: &Actor) -> ProviderId {
    let models = app.models();
    let id = models
        .save_provider(owner, None, provider("vectors"), None)
        .await
        .unwrap()
        .id;
    let form = ModelForm {
        kind: ModelKind::Embedding,
        ..model("v-1", "0.1")
    };
    models.save_model(owner, id, None, form).await.unwrap();
    id
}

pub(crate) async fn ask(services: &Services, model: &str) -> Answer {
    let turn = Turn {
        role: gateway::Role::User,
        text: "hello there".to_owned(),
    };
    let request = ChatRequest {
        model: model.to_owned(),
        messages: vec![turn],
        max_tokens: 100,
        user: String::new(),
    };
    let nobody = CancellationToken::new();
    services.gateway().answer(&request, &nobody, |_| {}).await
}

fn failure_of(answer: &Answer) -> Option<ErrorCode> {
    answer.failure.as_ref().map(GatewayError::code)
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
    assert!(!board.is_demo && !board.is_away);
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
    assert!(!stranger.gateway().is_demo() && stranger.gateway().models().is_empty());
    let answer = ask(&stranger, "m-1").await;
    assert_eq!(failure_of(&answer), Some(ErrorCode::AiDown), "{answer:?}");
    let board = stranger.models().board(&owner).await.unwrap();
    assert!(board.is_away && !board.is_demo && board.providers[0].is_sealed);
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
    let second = models.save_model(&owner, id, None, model("m-2", "1")).await.unwrap().id;
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
    assert!(!app.gateway().is_demo(), "what was set up is missed");
    assert_eq!(failure_of(&ask(&app, "c").await), Some(ErrorCode::AiDown));
}

#[tokio::test]
async fn a_model_behind_a_name_is_asked_earlier_step_by_step_and_the_trail_says_so() {
    let app = deck().await;
    let (owner, id, first) = added(&app, "home").await;
    let models = app.models();
    let second = models.save_model(&owner, id, None, model("m-2", "1")).await.unwrap().id;
    let third = models.save_model(&owner, id, None, model("m-3", "1")).await.unwrap().id;
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

#[tokio::test]
async fn a_provider_that_staff_switch_off_is_missed_and_no_demo_stands_in_for_it() {
    let app = deck().await;
    let (owner, id, _) = added(&app, "home").await;
    added_embeddings(&app, &owner).await;
    let off = ProviderForm {
        enabled: false,
        ..provider("home")
    };
    app.models().save_provider(&owner, Some(id), off, None).await.unwrap();
    let gateway = app.gateway();
    assert!(!gateway.is_demo() && gateway.models().is_empty());
    assert_eq!(gateway.embedders(), ["v-1"], "what is not for chat goes on");
    // A bot without a model of its own asks for what it asked for before, and staff read what is wrong with that.
    let known = app.user(7).await;
    let name = app.chats().model(&known, None).unwrap().name.clone();
    let answer = ask(&app, &name).await;
    assert_eq!((name.as_str(), failure_of(&answer)), ("m-1", Some(ErrorCode::AiDown)));
    let cause = answer.failure.unwrap().cause();
    assert!(cause.contains("nobody can be asked for m-1"), "{cause}");
    let board = app.models().board(&owner).await.unwrap();
    assert!(board.is_away && !board.is_demo && !board.providers[0].is_sealed);

    app.models()
        .save_provider(&owner, Some(id), provider("home"), None)
        .await
        .unwrap();
    assert_eq!(app.gateway().default_model().name, "m-1");
}

#[tokio::test]
async fn beside_models_that_are_not_for_chat_the_demo_answers() {
    let app = deck().await;
    let owner = app.owner().await;
    let vectors = added_embeddings(&app, &owner).await;
    let gateway = app.gateway();
    assert!(gateway.is_demo() && !app.models().board(&owner).await.unwrap().is_away);
    assert_eq!(
        (gateway.default_model().name.as_str(), gateway.embedders()),
        ("demo", vec!["v-1".to_owned()])
    );
    let answer = ask(&app, "demo").await;
    assert!(answer.text.contains("demo model"), "{answer:?}");
    // Somebody calls a model of theirs as the demo is called.
    let models = app.models();
    models
        .save_model(&owner, vectors, None, model("demo", "1"))
        .await
        .unwrap();
    assert!(!app.gateway().is_demo() && app.gateway().models().len() == 1);
}

#[tokio::test]
async fn a_save_says_what_has_changed() {
    let app = deck().await;
    let (owner, id, model_id) = added(&app, "home").await;
    let models = app.models();
    app.clock.advance(TimeDelta::seconds(60));
    let cheaper = ModelForm {
        price: Price {
            cached_input: "0.25".parse().unwrap(),
            ..model("m-1", "1.5").price
        },
        ..model("m-1", "1.5")
    };
    let saved = models
        .save_model(&owner, id, Some(model_id), cheaper.clone())
        .await
        .unwrap();
    let change = Change {
        name: "m-1".to_owned(),
        before: Some(json!({ "price_cached_input": "0" })),
        after: Some(json!({ "price_cached_input": "0.25" })),
    };
    assert_eq!((saved.id, &saved.change), (model_id, &change));
    // A form without script is told the same by the trail.
    let last = async |saved: String| models.last_change(&owner, &saved).await.unwrap();
    assert_eq!(last(format!("model:{model_id}")).await, Some(change));
    for nothing in ["model:nobody", "home", "staff:1"] {
        assert_eq!(last(nothing.to_owned()).await, None);
    }
    let again = models.save_model(&owner, id, Some(model_id), cheaper).await.unwrap();
    assert_eq!((again.change.before, again.change.after), (None, None));

    let form = AliasForm {
        name: "smart".to_owned(),
        shown: true,
        targets: vec![(0, model_id, 1)],
    };
    let alias = models.save_alias(&owner, form).await.unwrap();
    assert_eq!(
        (alias.change.before, alias.change.after),
        (
            None,
            Some(json!({ "name": "smart", "shown": true, "leads_to": "home/m-1" }))
        )
    );
    let renamed = models
        .save_provider(&owner, Some(id), provider("lab"), None)
        .await
        .unwrap();
    assert_eq!(
        (renamed.change.before, renamed.change.after),
        (
            Some(json!({ "name": "home" })),
            Some(json!({ "name": "lab", "secrets_replaced": true }))
        )
    );
}

#[tokio::test]
async fn a_provider_is_tested_with_each_key_by_what_it_has() {
    let app = deck().await;
    let owner = app.owner().await;
    let fake = FakeProvider::start().await.unwrap();
    let models = app.models();
    let form = |enabled: bool| ProviderForm {
        base_url: fake.url(),
        headers: None,
        enabled,
        ..provider("home")
    };
    let good = Some(SecretString::from("sk-fake"));
    let id = models.save_provider(&owner, None, form(true), good).await.unwrap().id;
    models
        .add_key(&owner, id, "sk-wrong-0123456789abcd".to_owned().into())
        .await
        .unwrap();
    let test = async |model: Option<ModelId>| {
        let tested = models.test(&owner, id, model).await.unwrap();
        let keys: Vec<_> = tested
            .keys
            .into_iter()
            .map(|key| (key.hint.unwrap(), key.failure))
            .collect();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0], ("…".to_owned(), None));
        assert!(
            keys[1].0 == "sk-…abcd" && keys[1].1.as_ref().unwrap().contains("401"),
            "{keys:?}"
        );
        (tested.model, tested.by)
    };
    assert_eq!(test(None).await, (None, TestedBy::Models));
    let of = |kind: ModelKind, name: &str| ModelForm {
        kind,
        ..model(name, "1")
    };
    models
        .save_model(&owner, id, None, of(ModelKind::Speech, "tts-1"))
        .await
        .unwrap();
    assert_eq!(test(None).await, (None, TestedBy::Models));
    let embedding = of(ModelKind::Embedding, "gpt-4o");
    let embedding = models.save_model(&owner, id, None, embedding).await.unwrap().id;
    assert_eq!(test(None).await, (None, TestedBy::Embedding("gpt-4o".to_owned())));
    // Before it is used it can be tried out as well.
    models.save_provider(&owner, Some(id), form(false), None).await.unwrap();
    let off = ModelForm {
        enabled: false,
        ..of(ModelKind::Chat, "gpt-4o-mini")
    };
    let chat = models.save_model(&owner, id, None, off).await.unwrap().id;
    assert_eq!(test(None).await, (None, TestedBy::Token("gpt-4o-mini".to_owned())));
    assert_eq!(
        test(Some(chat)).await,
        (Some(chat), TestedBy::Token("gpt-4o-mini".to_owned()))
    );
    assert_eq!(
        test(Some(embedding)).await,
        (Some(embedding), TestedBy::Embedding("gpt-4o".to_owned()))
    );

    let stranger = app.replica(&services::KeyRing::generate());
    stranger.models().refresh().await.unwrap();
    let sealed = stranger.models().test(&owner, id, None).await.unwrap().keys;
    assert!(
        sealed[0].failure.as_ref().unwrap().contains("BOTDECK_SECRET_KEY"),
        "{sealed:?}"
    );
    let nobody = models.test(&owner, ProviderId(uuid::Uuid::now_v7()), None).await;
    assert!(matches!(nobody, Err(Error::NotFound("the provider"))), "{nobody:?}");
    let another = added_embeddings(&app, &owner).await;
    let strange = models.test(&owner, another, Some(chat)).await;
    assert!(matches!(strange, Err(Error::NotFound("the model"))), "{strange:?}");
}

#[tokio::test]
async fn a_card_says_until_when_a_provider_is_left_alone_and_what_it_failed_with() {
    let app = deck().await;
    let (owner, id, _) = added(&app, "home").await;
    let card = async || app.models().board(&owner).await.unwrap().providers.remove(0);
    assert_eq!(card().await.last_failure, None);
    // Nobody listens there.
    let answer = ask(&app, "m-1").await;
    assert_eq!(failure_of(&answer), Some(ErrorCode::AiDown));
    let failure = card().await.last_failure.unwrap();
    assert_eq!((failure.code.as_str(), failure.is_over), ("BD-AI-DOWN", false));
    assert!(app.now() - failure.at < TimeDelta::minutes(1) && !failure.cause.is_empty());
    let told = SharedBreaker {
        provider: id,
        key: None,
        open_for: Duration::from_secs(50),
        code: ErrorCode::AiDown,
    };
    app.gateway().share_breakers(&[told]);
    let state = card().await.state;
    let BreakerState::Open { until: Some(until) } = state else {
        panic!("{state:?}");
    };
    let left = until - app.now();
    assert!(
        left > TimeDelta::seconds(30) && left <= TimeDelta::seconds(50),
        "{left}"
    );
    app.gateway().share_breakers(&[]);
    let card = card().await;
    assert_eq!(
        (card.state, card.last_failure.unwrap().is_over),
        (BreakerState::Closed, true)
    );
}

/// The address of a server that says `fine`, if it answers at all.
pub(crate) async fn server(answers: Arc<AtomicBool>) -> String {
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
        .unwrap()
        .id;
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
    assert_eq!(code(ask(&third, "m-1").await), Some(ErrorCode::AiTimeout));
    assert_eq!(code(ask(&first, "m-1").await), Some(ErrorCode::AiTimeout));
    until(&app, "breakers WHERE until > changed_at", 1).await;

    second.models().refresh().await.unwrap();
    assert_eq!(state(&second), gateway::BreakerState::Open);
    let answer = ask(&second, "m-1").await;
    assert!(
        answer.tries.is_empty() && answer.total < deadlines.first_token,
        "nobody waits for it"
    );
    assert_eq!(code(answer), Some(ErrorCode::AiTimeout));

    answers.store(true, Ordering::Relaxed);
    assert_eq!(ask(&third, "m-1").await.text, "fine");
    until(&app, "breakers", 0).await;
    second.models().refresh().await.unwrap();
    assert_eq!(state(&second), gateway::BreakerState::Closed);
    assert_eq!(ask(&second, "m-1").await.text, "fine");
    // What a replica saw itself it finds out itself.
    first.models().refresh().await.unwrap();
    assert_eq!(state(&first), gateway::BreakerState::Open);
}

/// What one replica has found out of one key of two holds for that key alone, on all replicas, and can be seen.
#[tokio::test]
async fn a_key_that_is_refused_is_left_alone_by_all_and_the_other_one_goes_on() {
    let app = deck().await;
    let fake = FakeProvider::start().await.unwrap();
    let good = "sk-good-0123456789abcdef";
    fake.accept_keys(&[good]);
    let owner = app.owner().await;
    let form = ProviderForm {
        base_url: fake.url(),
        headers: None,
        ..provider("home")
    };
    let models = app.models();
    let saved = models
        .save_provider(&owner, None, form, Some(KEY.to_owned().into()))
        .await;
    let id = saved.unwrap().id;
    models.add_key(&owner, id, good.to_owned().into()).await.unwrap();
    models
        .save_model(&owner, id, None, model("fake-model", "1"))
        .await
        .unwrap();
    let rules = BreakerRules {
        in_a_row: 1,
        first: Duration::from_secs(60),
        ..BreakerRules::default()
    };
    let first = app.asking(Deadlines::default(), rules);
    let second = app.asking(Deadlines::default(), rules);
    for replica in [&first, &second] {
        replica.models().refresh().await.unwrap();
    }
    let events = first.clone();
    tokio::spawn(async move { events.models().spread_breakers().await });
    tokio::task::yield_now().await;
    let mut tries = Vec::new();
    for _ in 0..4 {
        let answer = ask(&first, "fake-model").await;
        assert_eq!(answer.text, "Echo: hello there");
        tries.extend(answer.tries.iter().map(|one| one.code));
    }
    // Whichever turn it had, it had one.
    let refused = tries.iter().filter(|code| **code == Some(ErrorCode::AiAuth)).count();
    assert_eq!((refused, tries.len()), (1, 5), "{tries:?}");

    until(
        &app,
        "breakers WHERE key_id <> '00000000-0000-0000-0000-000000000000'",
        1,
    )
    .await;
    second.models().refresh().await.unwrap();
    for _ in 0..4 {
        assert_eq!(ask(&second, "fake-model").await.tries.len(), 1);
    }
    let asked = |key: &str| fake.requests().iter().filter(|request| request.key == key).count();
    // The fake writes down no key that it refuses.
    assert_eq!((asked(good), asked("")), (8, 1));
    for replica in [&first, &second] {
        let card = replica.models().board(&owner).await.unwrap().providers.remove(0);
        assert_eq!(card.state, BreakerState::Closed, "it answers");
        let open: Vec<bool> = card.keys.iter().map(|key| key.state != BreakerState::Closed).collect();
        assert_eq!(open, [true, false], "in their order: {:?}", card.keys);
    }

    // One that is over its own limit, likewise: the other keys go on.
    let third = "sk-more-0123456789abcdef";
    fake.accept_keys(&[good, third]);
    models.add_key(&owner, id, third.to_owned().into()).await.unwrap();
    first.models().refresh().await.unwrap();
    fake.fail_next(1, ProviderFault::RateLimited { retry_after: 50 });
    let answer = ask(&first, "fake-model").await;
    let codes: Vec<_> = answer.tries.iter().map(|one| one.code).collect();
    assert_eq!(
        (codes, answer.text.as_str()),
        (vec![Some(ErrorCode::AiBusy), None], "Echo: hello there")
    );
    until(
        &app,
        "breakers WHERE key_id <> '00000000-0000-0000-0000-000000000000'",
        2,
    )
    .await;
    for _ in 0..4 {
        assert_eq!(ask(&first, "fake-model").await.tries.len(), 1);
    }
}
