//! A road to Redis on which everything can be made to take longer.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use test_support::app::OrFail;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    task::JoinHandle,
};

/// Listens on a port of its own and passes on to a unix socket; ends with its handle.
pub struct Proxy {
    pub url: String,
    delay_ms: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(socket: &str) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.or_fail("no port for the proxy");
        let url = format!("redis://{}", tcp.local_addr().or_fail("no address"));
        let (delay_ms, socket) = (Arc::new(AtomicU64::new(0)), socket.to_owned());
        let delay = delay_ms.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = tcp.accept().await {
                let _ = near.set_nodelay(true);
                let (socket, delay) = (socket.clone(), delay.clone());
                tokio::spawn(async move {
                    // Refused there is closed here.
                    let Ok(far) = UnixStream::connect(socket).await else {
                        return;
                    };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        _ = pass(near_in, far_out, &delay) => {}
                        _ = pass(far_in, near_out, &delay) => {}
                    }
                });
            }
        });
        Self { url, delay_ms, task }
    }

    /// How long everything takes from now on, each way.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).or_fail("a delay");
        self.delay_ms.store(ms, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay_ms: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        let delay = delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        to.write_all(&bytes[..length]).await?;
    }
}
