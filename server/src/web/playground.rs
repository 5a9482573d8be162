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

/// While something is going on; more often nobody could read it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When nothing is. What this process writes wakes the stream all the same; this is for what another replica does.
const LOOK_WHEN_QUIET: Duration = Duration::from_secs(2);
/// So long after a change another is to be expected: an answer to what was asked, more of what is being written.
const EXPECTED_WITHIN: Duration = Duration::from_secs(10);
const WRITTEN_WITHIN: Duration = Duration::from_secs(120);

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
        is_writing: false,
        changed: Instant::now(),
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
    /// An answer was still growing when it was last seen.
    is_writing: bool,
    changed: Instant,
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
    let playground = watch.state.services.playground();
    loop {
        if !may_go_on(&mut watch).await {
            return None;
        }
        // Before looking, so that nothing falls between looking and waiting.
        let woken = playground.changed();
        let changes = playground.changes(&watch.actor, watch.bot, watch.revision).await;
        let (messages, revision) = changes.ok()?;
        watch.revision = revision;
        if !messages.is_empty() || watch.first {
            watch.first = false;
            watch.is_writing = messages.iter().any(|message| !message.complete);
            watch.changed = Instant::now();
            let event = Event::default().json_data(&messages).ok()?;
            return Some((Ok(event), watch));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(pause) = pause(watch.is_writing, watch.changed.elapsed()) {
            let _ = tokio::time::timeout(pause, woken).await;
        }
    }
}

/// How much longer than [`LOOK_EVERY`] the next look may wait. Tabs that stand open must not cost what a running talk does.
fn pause(is_writing: bool, quiet: Duration) -> Option<Duration> {
    let expected = if is_writing { WRITTEN_WITHIN } else { EXPECTED_WITHIN };
    (quiet > expected).then_some(LOOK_WHEN_QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tab_that_stands_open_asks_seldom() {
        let after = |is_writing, seconds| pause(is_writing, Duration::from_secs(seconds));
        assert_eq!((after(false, 1), after(true, 60)), (None, None));
        assert_eq!(after(false, 11), Some(LOOK_WHEN_QUIET));
        // An answer whose worker died does not keep it busy for good.
        assert_eq!(after(true, 121), Some(LOOK_WHEN_QUIET));
    }
}
