//! One page is rendered by one task.
//!
//! The reactive graph spawns a task for each thing a page waits for. Run by several threads these can wait for each other's locks
//! for ever: one holds what it finished and wants to mark who asked for it, another is who asked and wants to let go of what it
//! asked for (<https://github.com/leptos-rs/leptos/issues/4673>). So what a page spawns is run here, in turn, by the task that
//! renders the page; different pages still go on side by side.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use any_spawner::{CustomExecutor, Executor};
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream::FuturesUnordered};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

tokio::task_local! {
    /// Of the page that is being rendered.
    static SPAWNED: Spawned;
}

/// What a page has spawned and nobody has begun to run.
#[derive(Clone, Default)]
struct Spawned(Arc<Mutex<Vec<Task>>>);

impl Spawned {
    fn push(&self, task: Task) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn take(&self) -> Vec<Task> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct ByPage;

impl CustomExecutor for ByPage {
    fn spawn(&self, task: Task) {
        match SPAWNED.try_with(Spawned::clone) {
            Ok(spawned) => spawned.push(task),
            Err(_) => drop(tokio::spawn(task)),
        }
    }

    fn spawn_local(&self, task: Pin<Box<dyn Future<Output = ()>>>) {
        tokio::task::spawn_local(task);
    }

    fn poll_local(&self) {}
}

/// To be called before anything of leptos, which else chooses for itself.
pub fn init() {
    // It is there already where a process has two servers, as tests do.
    let _ = Executor::init_custom_executor(ByPage);
}

/// Around all that renders. A page is complete when this returns, as its tasks end with it.
pub async fn by_one_task(request: Request, next: Next) -> Response {
    run(async { complete(next.run(request).await).await }).await
}

async fn complete(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        return response;
    }
    let (head, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(head, Body::from(bytes)),
        Err(error) => {
            tracing::error!(error = %error, "A page broke off while it was rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Runs `page` and what it spawns, and what that spawns, until the page is done; what is left then is dropped.
async fn run<T>(page: impl Future<Output = T>) -> T {
    let spawned = Spawned::default();
    let mut page = pin!(SPAWNED.scope(spawned.clone(), page));
    let mut tasks = FuturesUnordered::new();
    poll_fn(|context| {
        loop {
            if let Poll::Ready(done) = page.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            SPAWNED.sync_scope(spawned.clone(), || {
                while let Poll::Ready(Some(())) = tasks.poll_next_unpin(context) {}
            });
            let fresh = spawned.take();
            if fresh.is_empty() {
                return Poll::Pending;
            }
            tasks.extend(fresh);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Notes how many of them were at work at the same moment at most.
    async fn work(at_work: Arc<AtomicUsize>, most: Arc<AtomicUsize>, done: oneshot::Sender<()>) {
        for _ in 0..20 {
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            at_work.fetch_sub(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
        // Nobody may wait for it any more.
        let _ = done.send(());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_a_page_spawns_never_runs_side_by_side() {
        init();
        let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = most.clone();
        let page = run(async move {
            for _ in 0..50 {
                let (done, is_done) = oneshot::channel();
                let (at_work, most) = (at_work.clone(), counted.clone());
                // What is spawned spawns in turn.
                Executor::spawn(async move { Executor::spawn(work(at_work, most, done)) });
                if rand::random() {
                    is_done.await.unwrap();
                }
            }
        });
        tokio::spawn(page).await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_left_when_the_page_is_done_is_dropped() {
        init();
        let (sender, dropped) = oneshot::channel::<()>();
        run(async {
            Executor::spawn(async move {
                std::future::pending::<()>().await;
                drop(sender);
            });
            tokio::task::yield_now().await;
        })
        .await;
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn outside_of_a_page_tasks_are_the_runtimes() {
        init();
        let (sender, ran) = oneshot::channel();
        Executor::spawn(async move { sender.send(()).unwrap() });
        ran.await.unwrap();
    }
}
