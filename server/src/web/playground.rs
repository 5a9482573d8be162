//! The live side of the playground: server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use domain::{AppError, BotId, Permission, StaffId};
use futures::stream;
use services::{Actor, Origin};
use tower_sessions::Session;

use super::AppState;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Sends the whole chat first, then whatever changes, each as a JSON array of messages.
pub async fn events(
    State(state): State<AppState>,
    Path(bot_id): Path<String>,
    session: Session,
    Extension(origin): Extension<Origin>,
) -> Response {
    let staff: Option<StaffId> = session.get(app::ssr::STAFF).await.ok().flatten();
    let actor = match state
        .services
        .auth()
        .authorise(staff, Permission::UsePlayground, origin)
        .await
    {
        Ok(actor) => actor,
        Err(error) => return refuse(error.into()),
    };
    let Ok(bot) = bot_id.parse::<BotId>() else {
        return refuse(AppError::new(domain::ErrorCode::NotFound));
    };
    let watch = Watch {
        state,
        actor,
        bot,
        revision: 0,
        first: true,
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Sse::new(stream::unfold(watch, next))
        .keep_alive(keep_alive)
        .into_response()
}

fn refuse(error: AppError) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(error)).into_response()
}

struct Watch {
    state: AppState,
    actor: Actor,
    bot: BotId,
    revision: i64,
    first: bool,
}

/// The stream ends when the database cannot be asked; the browser connects again by itself.
async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    loop {
        let changes = watch
            .state
            .services
            .playground()
            .changes(&watch.actor, watch.bot, watch.revision)
            .await;
        let (messages, revision) = changes.ok()?;
        watch.revision = revision;
        if !messages.is_empty() || watch.first {
            watch.first = false;
            let event = Event::default().json_data(&messages).ok()?;
            return Some((Ok(event), watch));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
