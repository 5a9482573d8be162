//! How much of the bodies of all calls there may be in memory at once. A body takes room as it comes, not as it is announced, so that
//! a slow one keeps from others no more than it has sent; it gives the room back when its call has ended.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::ApiError;

/// Of all calls together, in bytes.
const ALL: usize = 256 * 1024 * 1024;
/// How long a piece of a body waits for room.
const PATIENCE: Duration = Duration::from_millis(500);

/// The room for the bodies of all calls, a permit for each byte.
#[derive(Clone)]
pub struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self::of(ALL)
    }
}

impl Bodies {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// The request with a body that takes room as it is read, and that room.
    fn count(&self, request: Request) -> (Request, Room) {
        let room = Room(Arc::new(Taken {
            bodies: Arc::clone(&self.0),
            permit: Mutex::default(),
            is_refused: AtomicBool::new(false),
        }));
        let counted = room.clone();
        let request = request.map(|body| {
            Body::from_stream(body.into_data_stream().then(move |piece| {
                let room = counted.clone();
                async move {
                    let piece = piece?;
                    room.take(piece.len()).await?;
                    Ok::<_, axum::Error>(piece)
                }
            }))
        });
        (request, room)
    }
}

/// What the body of a call takes; free when all copies are dropped.
#[derive(Clone)]
pub struct Room(Arc<Taken>);

struct Taken {
    bodies: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    is_refused: AtomicBool,
}

impl Room {
    async fn take(&self, bytes: usize) -> Result<(), axum::Error> {
        let bytes = u32::try_from(bytes).map_err(axum::Error::new)?;
        let more = timeout(PATIENCE, Arc::clone(&self.0.bodies).acquire_many_owned(bytes));
        let Ok(Ok(more)) = more.await else {
            self.0.is_refused.store(true, Ordering::Relaxed);
            return Err(axum::Error::new("no room for the body"));
        };
        let mut permit = self.0.permit.lock().unwrap_or_else(PoisonError::into_inner);
        match permit.as_mut() {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
    }
}

/// Counts the body of a call. Whoever reads it keeps the [`Room`] among the request's extensions for as long as the body.
pub async fn count(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    let (mut request, room) = bodies.count(request);
    request.extensions_mut().insert(room.clone());
    let response = next.run(request).await;
    // Whoever read it only knows that the body broke off.
    if room.0.is_refused.load(Ordering::Relaxed) {
        metrics::counter!("botdeck_api_bodies_refused_total").increment(1);
        return ApiError::overloaded().into_response();
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn bodies_take_room_as_they_come_and_until_their_calls_end() {
        let bodies = Bodies::of(10);
        let read = async |pieces: &'static [&'static str]| {
            let body = Body::from_stream(futures::stream::iter(pieces.iter().copied()).map(Ok::<_, axum::Error>));
            let (request, room) = bodies.count(Request::new(body));
            (to_bytes(request.into_body(), 100).await.ok(), room)
        };
        let (first, first_room) = read(&["abc", "def"]).await;
        assert_eq!(first.unwrap(), "abcdef");
        let (second, second_room) = read(&["ab", "cde"]).await;
        assert!(second.is_none() && second_room.0.is_refused.load(Ordering::Relaxed));
        assert_eq!(bodies.0.available_permits(), 2);
        drop(second_room);
        let (third, third_room) = read(&["abcd"]).await;
        assert_eq!(third.unwrap(), "abcd");
        drop((first_room, third_room));
        assert_eq!(bodies.0.available_permits(), 10);
    }
}
