//! The live side of the playground: server-sent events.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

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
use tower_sessions::{Session, session};

use super::{AppState, sessions};

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
        .authorise(staff, Permission::UsePlayground, origin.clone())
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
        session: session.id(),
        origin,
        bot,
        revision: 0,
        first: true,
        authorised: Instant::now(),
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
    session: Option<session::Id>,
    origin: Origin,
    bot: BotId,
    revision: i64,
    first: bool,
    authorised: Instant,
}

/// A stream outlives its first check: who signs out or loses the right stops seeing within this time.
const AUTHORISE_EVERY: Duration = Duration::from_secs(5);

async fn may_go_on(watch: &mut Watch) -> bool {
    if watch.authorised.elapsed() < AUTHORISE_EVERY {
        return true;
    }
    // What was read at the beginning is kept in memory: the row may be gone by now.
    let session = sessions::read(&watch.state, watch.session);
    let staff: Option<StaffId> = session.get(app::ssr::STAFF).await.ok().flatten();
    let auth = watch.state.services.auth();
    let allowed = auth
        .authorise(staff, Permission::UsePlayground, watch.origin.clone())
        .await;
    watch.authorised = Instant::now();
    allowed.map(|actor| watch.actor = actor).is_ok()
}

/// The stream ends when the right to it does, or when the database cannot be asked; the browser connects again by itself.
async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    loop {
        if !may_go_on(&mut watch).await {
            return None;
        }
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
