//! The socket under both fakes: no Nagle delay, and a switch in every connection that makes it vanish without an answer.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Locks even when a thread panicked while holding it: a failed test must still be able to tell what it saw.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct KillSwitch {
    on: AtomicBool,
    reader: AtomicWaker,
}

/// Ends one connection as a network failure would: what is under way is dropped and no byte is written any more.
#[derive(Clone, Default)]
pub(crate) struct Kill(Arc<KillSwitch>);

impl Kill {
    /// Cuts the connection; a handler calls it and then waits for ever, to be dropped with its connection.
    pub(crate) fn kill(&self) {
        self.0.on.store(true, Ordering::SeqCst);
        self.0.reader.wake();
    }

    fn error(&self) -> Option<io::Error> {
        self.0
            .on
            .load(Ordering::SeqCst)
            .then(|| io::Error::from(io::ErrorKind::ConnectionReset))
    }
}

impl Connected<IncomingStream<'_, KillableListener>> for Kill {
    fn connect_info(stream: IncomingStream<'_, KillableListener>) -> Self {
        stream.io().kill.clone()
    }
}

/// A TCP connection that obeys its [`Kill`].
pub(crate) struct KillableStream {
    tcp: TcpStream,
    kill: Kill,
}

impl AsyncRead for KillableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.kill.0.reader.register(cx.waker());
        match self.kill.error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.tcp).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for KillableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.kill.error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.tcp).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.kill.error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

/// Accepts connections and remembers their switches, so that stopping the server ends them all.
pub(crate) struct KillableListener {
    tcp: TcpListener,
    open: Arc<Mutex<Vec<std::sync::Weak<KillSwitch>>>>,
}

impl Listener for KillableListener {
    type Io = KillableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.tcp.accept().await {
                Ok((tcp, addr)) => {
                    // Streamed chunks are tiny: with Nagle's algorithm each would wait for the acknowledgement of the last.
                    let _ = tcp.set_nodelay(true);
                    let kill = Kill::default();
                    let mut open = lock(&self.open);
                    open.retain(|switch| switch.strong_count() > 0);
                    open.push(Arc::downgrade(&kill.0));
                    return (KillableStream { tcp, kill }, addr);
                }
                // Out of file descriptors, mostly: trying again at once would only spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A running server, ended by dropping it.
pub(crate) struct Server {
    stop: watch::Sender<bool>,
    open: Arc<Mutex<Vec<std::sync::Weak<KillSwitch>>>>,
}

impl Server {
    /// Serves in the background on a socket that listens already.
    pub(crate) fn start(tcp: TcpListener, router: Router) -> Self {
        let open = Arc::new(Mutex::new(Vec::new()));
        let listener = KillableListener {
            tcp,
            open: Arc::clone(&open),
        };
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<Kill>();
            tokio::select! {
                _ = axum::serve(listener, service) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        });
        Self { stop, open }
    }

    /// Frees the port and cuts every connection, as a crash would.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
        for switch in lock(&self.open).drain(..).filter_map(|switch| switch.upgrade()) {
            Kill(switch).kill();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
