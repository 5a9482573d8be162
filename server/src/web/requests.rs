//! The log of calls as a file.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use domain::{AppError, Permission, StaffId, views::requests::RequestRow};
use futures::{StreamExt, stream};
use services::{Error, Origin};
use tower_sessions::Session;

use super::{AppState, csv};

/// What the page of the same query shows, from its first row to the last. It is written while it is read.
pub async fn export(
    State(state): State<AppState>,
    session: Session,
    Extension(origin): Extension<Origin>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    answer(state, session, origin, asked).await.unwrap_or_else(|error| {
        let error = AppError::from(error);
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(error)).into_response()
    })
}

async fn answer(
    state: AppState,
    session: Session,
    origin: Origin,
    asked: Vec<(String, String)>,
) -> Result<Response, Error> {
    let staff: Option<StaffId> = session.get(app::ssr::STAFF).await.ok().flatten();
    let lang = origin.lang;
    let auth = state.services.auth();
    let actor = auth.authorise(staff, Permission::ReadRequests, origin).await?;
    let table = app::requests_table(asked, lang);
    let batches = state
        .services
        .requests()
        .export(&actor, table.query.clone(), &table.names())
        .await?;

    let mut head = csv::BEGINNING.to_owned();
    csv::write_line(&mut head, table.head());
    let lines = batches.map(move |batch: Result<Vec<RequestRow>, Error>| match batch {
        Ok(rows) => {
            let mut lines = String::new();
            for row in &rows {
                csv::write_line(&mut lines, table.cells(row));
            }
            Ok(Bytes::from(lines))
        }
        // The file breaks off, and the browser says that it was not loaded.
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "An export of the log of calls broke off"
            );
            Err(error)
        }
    });
    let body = stream::once(async { Ok(Bytes::from(head)) }).chain(lines);
    let name = format!(
        "attachment; filename=\"requests-{}.csv\"",
        state.services.now().date_naive()
    );
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/csv; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
