//! Programs that call a model. Each connection is one of TCP, without anything between it and the figures; each answer is read to its
//! end and looked at.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::json;
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};

use crate::run::number;

/// Longer than any call takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls of all programs together in a closed loop that is measured; a shorter one only warms up.
const FEWEST: usize = 30;
const LEAST: Duration = Duration::from_millis(1500);
/// Connections of an open loop; calls beyond wait for one, which counts as theirs.
const MOST_LINES: usize = 400;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    Plain,
    /// Streamed in 20 chunks, as fast as they go.
    Burst,
    /// Streamed in 20 chunks, 15 ms apart.
    Paced,
    /// Streamed so slowly that many are open at once.
    Held,
}

impl Kind {
    pub const MEASURED: [Self; 3] = [Self::Plain, Self::Burst, Self::Paced];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Burst => "burst stream",
            Self::Paced => "paced stream",
            Self::Held => "held stream",
        }
    }

    /// How the fake provider is to answer.
    fn manner(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Burst => " [[chunks=20,0ms]]",
            Self::Paced => " [[chunks=20,15ms]]",
            Self::Held => " [[chunks=20,500ms]]",
        }
    }
}

/// Who is called. Clones count together.
#[derive(Clone)]
pub struct Target {
    addr: SocketAddr,
    key: String,
    model: &'static str,
    next: Arc<AtomicUsize>,
}

impl Target {
    pub fn new(addr: SocketAddr, key: &str, model: &'static str) -> Self {
        Self {
            addr,
            key: key.to_owned(),
            model,
            next: Arc::default(),
        }
    }

    /// About what programs ask, and never the same twice. The usage of streams is asked for on all ways, since Botdeck does.
    fn request(&self, kind: Kind) -> anyhow::Result<Request<Full<Bytes>>> {
        let question = format!(
            "Question {}: which trains go from Kazan to Moscow tomorrow morning, how long do they take and what does a ticket \
             cost?{}",
            self.next.fetch_add(1, Ordering::Relaxed),
            kind.manner()
        );
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "system", "content": "Answer in one line."}, {"role": "user", "content": question}],
        });
        if kind != Kind::Plain {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        Ok(Request::post("/v1/chat/completions")
            .header(header::HOST, self.addr.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?)
    }
}

/// How long one call took from the moment it was due: until its first byte, and to its end.
struct Times {
    first: Duration,
    whole: Duration,
}

/// What all calls of a run have felt.
pub struct Felt {
    pub elapsed: Duration,
    // Sorted.
    first: Vec<Duration>,
    whole: Vec<Duration>,
}

impl Felt {
    async fn of(mut calls: JoinSet<anyhow::Result<Vec<Times>>>, started: Instant) -> anyhow::Result<Self> {
        let (mut first, mut whole) = (Vec::new(), Vec::new());
        while let Some(times) = calls.join_next().await {
            for times in times?? {
                first.push(times.first);
                whole.push(times.whole);
            }
        }
        let elapsed = started.elapsed();
        first.sort_unstable();
        whole.sort_unstable();
        Ok(Self { elapsed, first, whole })
    }

    pub fn calls(&self) -> usize {
        self.whole.len()
    }

    /// A percentile of whole calls, in milliseconds.
    pub fn whole(&self, percent: usize) -> f64 {
        percentile(&self.whole, percent)
    }

    /// A percentile of first bytes, in milliseconds.
    pub fn first(&self, percent: usize) -> f64 {
        percentile(&self.first, percent)
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
}

/// One connection.
struct Line(SendRequest<Full<Bytes>>);

impl Line {
    async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn send(&mut self, target: &Target, kind: Kind) -> anyhow::Result<Incoming> {
        self.0.ready().await?;
        let answer = self.0.send_request(target.request(kind)?).await?;
        if answer.status() != StatusCode::OK {
            let (status, body) = (answer.status(), answer.into_body().collect().await?.to_bytes());
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(answer.into_body())
    }

    /// One call, which was due at `due`.
    async fn call(&mut self, target: &Target, kind: Kind, due: Instant) -> anyhow::Result<Times> {
        let call = async {
            let mut body = self.send(target, kind).await?;
            let (mut first, mut text) = (None, Vec::new());
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    first.get_or_insert_with(|| due.elapsed());
                    text.extend_from_slice(&data);
                }
            }
            let whole = due.elapsed();
            check(kind, &text)?;
            let first = first.unwrap_or(whole);
            anyhow::Ok(Times { first, whole })
        };
        tokio::time::timeout(PATIENCE, call)
            .await
            .context("a call is not answered")?
    }
}

/// A fast wrong answer is worth nothing. That each is billed as the provider says is looked at where all of them are counted.
fn check(kind: Kind, text: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(text)?;
    let right = match kind {
        Kind::Plain => text.contains("Echo: Question") && text.contains("total_tokens"),
        _ => text.trim_end().ends_with("data: [DONE]") && text.matches("\"content\":").count() >= 20,
    };
    if !right {
        bail!("not the answer of a {}: {text}", kind.name());
    }
    Ok(())
}

/// So many programs, each of which calls again as soon as it is answered, for `span`, and until there are enough calls for a percentile
/// of slow ones.
pub async fn closed(target: &Target, kind: Kind, connections: usize, span: Duration) -> anyhow::Result<Felt> {
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(Line::open(target.addr).await?);
    }
    let enough = if span < LEAST { 1 } else { FEWEST / connections.max(1) };
    let started = Instant::now();
    let mut programs = JoinSet::new();
    for mut line in lines {
        let target = target.clone();
        programs.spawn(async move {
            let mut times = Vec::new();
            loop {
                times.push(line.call(&target, kind, Instant::now()).await?);
                if started.elapsed() >= span && times.len() >= enough {
                    return Ok(times);
                }
            }
        });
    }
    Felt::of(programs, started).await
}

/// So many calls a second, evenly, whether or not those before are answered; each is timed from when it was due.
pub async fn open(target: &Target, kind: Kind, rate: usize, span: Duration) -> anyhow::Result<Felt> {
    let calls = (rate * usize::try_from(span.as_millis())? / 1000).max(1);
    let idle = Arc::new(Mutex::new(Vec::new()));
    let room = Arc::new(Semaphore::new(MOST_LINES));
    let started = Instant::now();
    let mut programs = JoinSet::new();
    for place in 0..calls {
        let due = started + span.mul_f64(number(place as u64) / number(calls as u64));
        tokio::time::sleep_until(due.into()).await;
        let (target, idle, room) = (target.clone(), Arc::clone(&idle), Arc::clone(&room));
        programs.spawn(async move {
            let _place = room.acquire().await?;
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut line = match waiting {
                Some(line) => line,
                None => Line::open(target.addr).await?,
            };
            let times = line.call(&target, kind, due).await?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            Ok(vec![times])
        });
    }
    Felt::of(programs, started).await
}

/// Streams that have begun: two chunks of each have come. Dropped, they are left.
pub struct Open {
    _streams: Vec<(Line, Incoming)>,
}

pub async fn hold(target: &Target, streams: usize) -> anyhow::Result<Open> {
    let mut opening = JoinSet::new();
    for _ in 0..streams {
        let target = target.clone();
        opening.spawn(async move {
            let mut line = Line::open(target.addr).await?;
            let mut body = line.send(&target, Kind::Held).await?;
            for _ in 0..2 {
                body.frame().await.context("a stream ended early")??;
            }
            anyhow::Ok((line, body))
        });
    }
    let mut open = Vec::new();
    let all = async {
        while let Some(stream) = opening.join_next().await {
            open.push(stream??);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .context("streams do not begin")??;
    Ok(Open { _streams: open })
}

#[cfg(test)]
mod tests {
    use test_support::{
        FakeProvider,
        fake_provider::{DEFAULT_KEY, DEFAULT_MODEL},
    };

    use super::*;
    use crate::gateway::proxy;

    #[tokio::test]
    async fn every_call_is_answered_in_full_straight_and_through_the_proxy() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let provider = FakeProvider::start().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(proxy::serve(listener, provider.url()));
        let span = Duration::from_millis(200);
        let mut calls = 0;
        for addr in [provider.addr(), addr] {
            let target = Target::new(addr, DEFAULT_KEY, DEFAULT_MODEL);
            for kind in Kind::MEASURED {
                for felt in [
                    closed(&target, kind, 2, span).await.unwrap(),
                    open(&target, kind, 50, span).await.unwrap(),
                ] {
                    assert!(felt.calls() >= 2 && felt.first(50) <= felt.whole(50), "{kind:?}");
                    assert!(felt.whole(50) <= felt.whole(99) && felt.whole(99) <= felt.elapsed.as_secs_f64() * 1000.0);
                    // Nineteen pauses of 15 ms.
                    assert!(kind != Kind::Paced || felt.whole(1) >= 285.0);
                    calls += felt.calls();
                }
            }
        }
        assert_eq!(provider.totals().finished, calls as u64);
        let wrong = Target::new(provider.addr(), "sk-wrong", DEFAULT_MODEL);
        assert!(closed(&wrong, Kind::Plain, 1, span).await.is_err());

        let held = hold(&Target::new(addr, DEFAULT_KEY, DEFAULT_MODEL), 5).await.unwrap();
        assert_eq!(provider.totals().disconnected, 0);
        drop(held);
        let left = |provider: &FakeProvider| (provider.totals().disconnected == 5).then_some(());
        provider.wait_for(Duration::from_secs(10), left).await.unwrap();
    }

    #[test]
    fn half_an_answer_is_none() {
        assert!(check(Kind::Plain, b"{}").is_err());
        assert!(check(Kind::Burst, b"data: [DONE]\n\n").is_err());
        let chunks = "data: {\"content\":\"x\"}\n\n".repeat(20);
        assert!(check(Kind::Burst, chunks.as_bytes()).is_err());
        assert!(check(Kind::Burst, format!("{chunks}data: [DONE]\n\n").as_bytes()).is_ok());
    }
}
