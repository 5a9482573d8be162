//! A short way from a provider to a program: whoever reads slowly holds a little of an answer, and not for long.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::GatewayError;

/// Bytes that are on their way at most; a larger piece goes alone.
const ROOM: u32 = 64 * 1024;

/// A piece, and the room that it takes.
type Piece = (Result<Bytes, GatewayError>, Option<OwnedSemaphorePermit>);

/// The provider's end.
pub(super) struct Pipe {
    // Bounded by the room.
    sender: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
    patience: Duration,
}

/// A pipe whose reader may let a piece wait for `patience`, and the reader's end.
pub(super) fn pipe(patience: Duration) -> (Pipe, BoxStream<'static, Result<Bytes, GatewayError>>) {
    let (sender, receiver) = mpsc::unbounded_channel::<Piece>();
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let (piece, _room) = receiver.recv().await?;
        Some((piece, receiver))
    });
    let pipe = Pipe {
        sender,
        room: Arc::new(Semaphore::new(ROOM as usize)),
        patience,
    };
    (pipe, pieces.boxed())
}

impl Pipe {
    /// False when the reader has gone or is too slow.
    pub(super) async fn send(&self, bytes: Bytes) -> bool {
        let size = u32::try_from(bytes.len()).map_or(ROOM, |size| size.min(ROOM));
        let room = timeout(self.patience, Arc::clone(&self.room).acquire_many_owned(size));
        let room = tokio::select! {
            () = self.sender.closed() => return false,
            room = room => room,
        };
        match room {
            Ok(Ok(room)) => self.sender.send((Ok(bytes), Some(room))).is_ok(),
            _ => false,
        }
    }

    /// The last piece.
    pub(super) fn fail(&self, error: GatewayError) {
        // Nobody may be reading any more.
        let _ = self.sender.send((Err(error), None));
    }

    /// Comes when the reader has gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}
