//! A provider takes so many requests at once, of however many replicas.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::future::join_all;
use services::{Services, models::ProviderForm};
use test_support::fake_provider::{DEFAULT_KEY, FakeProvider, Reply};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    models::{KEY, ask, deck, model, provider, server},
    rate::share_of_a_dozen,
};

/// A provider that takes `most` at once, with one model.
async fn takes(app: &App, most: i32, base_url: String, key: &str) {
    let owner = app.owner().await;
    let form = ProviderForm {
        base_url,
        max_concurrent: Some(most),
        headers: None,
        ..provider("home")
    };
    let key = Some(key.to_owned().into());
    let saved = app.models().save_provider(&owner, None, form, key).await.unwrap();
    let form = model("fake-model", "1");
    app.models().save_model(&owner, saved.id, None, form).await.unwrap();
}

/// One place is fewer than there are replicas: they take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_take_turns_where_there_are_fewer_places_than_replicas() {
    let app = deck().await;
    let fake = FakeProvider::start().await.unwrap();
    fake.reply_with(|_| Reply::text("fine").delay(Duration::from_millis(20)));
    takes(&app, 1, fake.url(), DEFAULT_KEY).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let replica = app.process().await;
        replica.models().refresh().await.unwrap();
        replicas.push(replica);
    }
    let asks = replicas
        .iter()
        .cycle()
        .take(30)
        .map(|replica| ask(replica, "fake-model"));
    for answer in join_all(asks).await {
        assert_eq!(answer.text, "fine", "{:?}", answer.failure);
    }
    assert_eq!(fake.most_at_once(), 1);
}

fn running(replica: &Services) -> usize {
    let states = replica.gateway().states();
    states.iter().find(|state| state.name == "home").unwrap().running
}

#[tokio::test]
async fn without_redis_each_replica_takes_its_share_by_how_many_live() {
    let app = deck().await;
    takes(&app, 12, server(Arc::new(AtomicBool::new(false))).await, KEY).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let stop = CancellationToken::new();
    let mut asking = tokio::task::JoinSet::new();
    for (others, share) in [12, 6, 4].into_iter().enumerate() {
        let replica = app.on_redis(&url);
        replica.models().refresh().await.unwrap();
        let (writing, stopped) = (replica.clone(), stop.clone());
        tokio::spawn(async move { writing.calls().write(true, stopped.cancelled_owned()).await });
        // What it takes before it has heard of the others stays taken.
        let heard = 12 / (others + 1).max(2);
        while share_of_a_dozen(replica.rate()).await != heard {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..20 {
            let replica = replica.clone();
            asking.spawn(async move { ask(&replica, "fake-model").await });
        }
        let taken = async {
            while running(&replica) != share {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let taken = tokio::time::timeout(Duration::from_secs(20), taken).await;
        assert!(taken.is_ok(), "{} of {share} beside {others} others", running(&replica));
    }
    stop.cancel();
}
