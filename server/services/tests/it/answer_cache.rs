//! Answers that replicas share by Redis, which may go away at any moment.

use std::time::{Duration, Instant};

use gateway::{Answer, CacheHit, CacheScope, ChatRequest, Role, Similar, Turn};
use services::Services;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, MODEL},
    rate::OwnRedis,
};

/// Asks, and how long it took until it was clear that no replica knows the answer. `other`: an answer in the place of the model's.
async fn ask(services: &Services, text: &str, other: Option<&str>) -> (Answer, Duration) {
    let request = ChatRequest {
        model: MODEL.to_owned(),
        messages: vec![Turn {
            role: Role::User,
            text: text.to_owned(),
        }],
        max_tokens: 500,
        user: "u".to_owned(),
    };
    let scope = CacheScope::new("test", Duration::from_secs(60));
    let began = Instant::now();
    let mut looked = Duration::ZERO;
    let similar = async {
        looked = began.elapsed();
        Some(Similar {
            text: other?.to_owned(),
            provider: "demo".to_owned(),
            model_id: None,
        })
    };
    let nobody = CancellationToken::new();
    let gateway = services.gateway();
    let answer = gateway
        .answer_cached(&request, Some(&scope), similar, &nobody, |_| {})
        .await;
    (answer, looked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frozen_redis_is_waited_for_once_and_shares_again_when_it_is_back() {
    let (app, redis) = (App::new().await, OwnRedis::start());
    let (one, other) = (app.on_redis(&redis.url()), app.on_redis(&redis.url()));
    let up = async |services: &Services| {
        let began = Instant::now();
        while services.rate().ping().await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "Redis does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    up(&one).await;
    up(&other).await;

    let (first, _) = ask(&one, "before", None).await;
    assert_eq!(first.cached, None);
    let until_shared = async |text: &str| {
        let began = Instant::now();
        loop {
            let (answer, _) = ask(&other, text, Some("unknown")).await;
            if answer.cached == Some(CacheHit::Exact) {
                return answer;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{text} is not shared");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(until_shared("before").await.text, first.text);

    redis.signal("STOP");
    let (_, took) = ask(&other, "during", Some("unknown")).await;
    assert!(took < Duration::from_millis(250), "waited {took:?}");
    // Of several, since this machine may be busy.
    let mut took = Duration::MAX;
    for text in ["a", "b", "c", "d", "e"] {
        took = took.min(ask(&other, text, Some("unknown")).await.1);
    }
    assert!(
        took < Duration::from_millis(50),
        "waited {took:?} for what is known to be away"
    );
    // What this process knows itself it gives all the same.
    assert_eq!(ask(&other, "before", None).await.0.cached, Some(CacheHit::Exact));

    redis.signal("CONT");
    up(&one).await;
    let (after, _) = ask(&one, "after", None).await;
    assert_eq!(until_shared("after").await.text, after.text);
}
