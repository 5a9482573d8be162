//! Calls to models. One way for all of them: who, which model, may they, is there room; then the gateway, whose answer passes untouched.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, Multipart, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use domain::{ApiScope, ErrorCode};
use futures::{StreamExt, stream::BoxStream};
use gateway::{
    AnswerBound, CacheHit, CacheScope, Endpoint, Forward, ForwardBody, GatewayError, ModelKind, Offer, Part,
};
use services::{Call, CallWish, Headroom, Reserved, Services};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{ApiError, Caller, asked::Asked, bodies::Room, headers};
use crate::web::AppState;

/// Of any body. OpenAI's own, of files of audio; as JSON, pictures of 18 MB together.
pub(super) const BODY_LIMIT: usize = 25 * 1024 * 1024;
/// Whoever sends a body more slowly than this keeps a place that others want.
const BODY_TIME: Duration = Duration::from_secs(60);
/// More fields than any endpoint has.
const MOST_PARTS: usize = 64;
/// What is logged where the program left before it was answered; nobody sees it.
const LEFT: u16 = 499;

macro_rules! endpoints {
    ($($name:ident = $endpoint:ident, $scope:ident;)+) => {$(
        pub async fn $name(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, ApiError> {
            call(&state, &caller, ApiScope::$scope, Endpoint::$endpoint, request).await
        }
    )+};
}

endpoints! {
    chat = Chat, Chat;
    responses = Responses, Chat;
    embeddings = Embeddings, Embeddings;
    images = Images, Images;
    transcriptions = Transcriptions, Audio;
    translations = Translations, Audio;
    speech = Speech, Audio;
}

/// What a program asks for, as far as it may.
struct Wanted {
    asked: Asked,
    body: ForwardBody,
    offer: Offer,
    cache: Option<CacheScope>,
}

/// Reads a call. `alias`: the name that is asked for, once it is known.
async fn read(
    state: &AppState,
    caller: &Caller,
    (scope, endpoint): (ApiScope, Endpoint),
    request: Request,
    alias: &mut String,
) -> Result<Wanted, ApiError> {
    caller.ask(scope)?;
    let cache = headers::cache(request.headers(), caller.0.id)?;
    let read = async {
        match endpoint {
            Endpoint::Transcriptions | Endpoint::Translations => form(request).await,
            _ => json_body(request, endpoint).await,
        }
    };
    let (asked, body) = tokio::time::timeout(BODY_TIME, read)
        .await
        .map_err(|_| ApiError::too_slow())??;
    alias.clone_from(&asked.alias);
    let offer = state.services.gateway().offer(&asked.alias, endpoint.kind());
    let Some(offer) = offer.filter(|_| caller.0.may_use(&asked.alias)) else {
        return Err(ApiError::no_model(&asked.alias));
    };
    Ok(Wanted {
        asked,
        body,
        offer,
        cache,
    })
}

async fn call(
    state: &AppState,
    caller: &Caller,
    scope: ApiScope,
    endpoint: Endpoint,
    request: Request,
) -> Result<Response, ApiError> {
    let room = request.extensions().get::<Room>().cloned();
    let mut alias = String::new();
    let wanted = match read(state, caller, (scope, endpoint), request, &mut alias).await {
        Ok(wanted) => wanted,
        Err(error) => {
            // Staff find in the log what a program was told.
            let code = error.ours.unwrap_or(ErrorCode::Invalid);
            let calls = state.services.calls();
            calls.turn_away(caller.0.id, &alias, code, error.status.as_u16());
            return Err(error);
        }
    };
    let Wanted {
        asked,
        body,
        offer,
        cache,
    } = wanted;
    let wish = CallWish {
        key: caller.0.id,
        tokens: asked.tokens(&offer),
        sound: matches!(endpoint, Endpoint::Transcriptions | Endpoint::Translations),
        answer: asked.answer(endpoint, &offer.model),
        // Of others nobody takes a bound.
        shortens: endpoint.kind() == ModelKind::Chat,
        speaks: asked.speaks(),
        images: asked.images(endpoint),
        alias: asked.alias.clone(),
        offer,
    };
    let Some(noted) = state.services.calls().begin(&wish) else {
        return Err(ApiError::overloaded());
    };
    // In a task of its own: what was used is written whether the program waits for the answer or not.
    let cancel = state.services.calls().cancel();
    let leaves = cancel.clone().drop_guard();
    let (sender, answer) = oneshot::channel();
    let errand = Errand {
        services: state.services.clone(),
        endpoint,
        asked,
        body,
        _room: room,
        wish,
        cache,
        cancel,
    };
    tokio::spawn(errand.run(noted, sender));
    let passed = answer.await.map_err(|_| ApiError::internal())??;
    let is_stream = passed.content_type.starts_with("text/event-stream");
    let content_type = HeaderValue::from_str(&passed.content_type)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    let body = passed.body.map(move |piece| {
        // Goes with the body: whoever drops that has left.
        let _ = &leaves;
        match piece {
            Ok(bytes) => Ok(bytes),
            // The status has been sent, so the failure is told as OpenAI tells it in the middle of a stream; behind a blank line, which
            // ends an event that may have been sent in part.
            Err(error) if is_stream => Ok(Bytes::from(format!(
                "\n\ndata: {}\n\n",
                ApiError::of_gateway(&error).body()
            ))),
            Err(error) => Err(std::io::Error::other(error.code().as_str())),
        }
    });
    let mut response = ([(header::CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response();
    headers::add_room(response.headers_mut(), &passed.room, state.services.now());
    if let Some(hit) = passed.cached {
        let value = HeaderValue::from_static(hit.name());
        response.headers_mut().insert(headers::CACHE, value);
    }
    if is_stream {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
    }
    Ok(response)
}

/// What the program gets.
struct Passed {
    content_type: String,
    body: BoxStream<'static, Result<Bytes, GatewayError>>,
    room: Vec<Headroom>,
    cached: Option<CacheHit>,
}

/// A call on its way to the gateway and back.
struct Errand {
    services: Services,
    endpoint: Endpoint,
    asked: Asked,
    body: ForwardBody,
    /// Of the body, for as long as that is kept.
    _room: Option<Room>,
    wish: CallWish,
    cache: Option<CacheScope>,
    cancel: CancellationToken,
}

impl Errand {
    /// Sets the budget aside, asks the gateway, and writes what came of it.
    async fn run(self, mut noted: Call, sender: oneshot::Sender<Result<Passed, ApiError>>) {
        let calls = self.services.calls();
        // In boxes of their own, since this task lives for as long as the answer goes on, and these are large and soon over.
        let admitted = Box::pin(calls.admit(&mut noted, &self.wish)).await;
        let reserved = match admitted {
            Ok(Ok(reserved)) => reserved,
            Ok(Err(refusal)) => return self.refuse(noted, sender, ApiError::limited(&refusal, self.services.now())),
            Err(error) => return self.refuse(noted, sender, error.into()),
        };
        let call = self.forward(&reserved);
        let forwarded = Box::pin(self.services.gateway().forward(call, &self.cancel)).await;
        match forwarded {
            Ok(forwarded) => {
                let passed = Passed {
                    content_type: forwarded.content_type,
                    body: forwarded.body,
                    room: reserved.room,
                    cached: forwarded.cached,
                };
                // A program that has left meanwhile takes nothing: the answer is dropped here, and its outcome comes all the same.
                let _ = sender.send(Ok(passed));
                if let Ok(outcome) = forwarded.outcome.await {
                    let code = outcome.failure.as_ref().map(GatewayError::code);
                    calls.finish(noted, outcome, code, StatusCode::OK.as_u16());
                }
            }
            Err(refused) => {
                // A process that stops cancels as well.
                let has_left = sender.is_closed();
                let error = ApiError::of_gateway(&refused.error);
                let (code, status) = if has_left {
                    (None, LEFT)
                } else {
                    (error.ours, error.status.as_u16())
                };
                let _ = sender.send(Err(error));
                calls.finish(noted, refused.outcome, code, status);
            }
        }
    }

    /// Nobody is asked.
    fn refuse(&self, noted: Call, sender: oneshot::Sender<Result<Passed, ApiError>>, error: ApiError) {
        let code = error.ours.unwrap_or(ErrorCode::Internal);
        self.services.calls().refuse(noted, code, error.status.as_u16());
        let _ = sender.send(Err(error));
    }

    /// Only what was set aside for a call bounds its answer: where no limit applies, that is its program's affair.
    fn bound(&self, reserved: &Reserved) -> Option<AnswerBound> {
        let is_bounded = reserved.held && self.endpoint.kind() == ModelKind::Chat;
        let tokens = is_bounded.then(|| self.asked.bound(reserved.answer)).flatten()?;
        Some(AnswerBound {
            tokens,
            is_budget: reserved.answer < self.wish.answer,
        })
    }

    fn forward(&self, reserved: &Reserved) -> Forward {
        Forward {
            endpoint: self.endpoint,
            alias: self.asked.alias.clone(),
            body: self.body.clone(),
            stream: self.asked.stream,
            bound: self.bound(reserved),
            tokens: self.wish.tokens,
            images: self.wish.images,
            spoken: self.asked.spoken(),
            cache: self.cache.clone(),
        }
    }
}

async fn json_body(request: Request, endpoint: Endpoint) -> Result<(Asked, ForwardBody), ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::invalid(
            None,
            "The body has to be JSON, with the header Content-Type: application/json.",
        ));
    }
    let body = to_bytes(request.into_body(), BODY_LIMIT)
        .await
        .map_err(|error| unread(&error, BODY_LIMIT))?;
    let asked = Asked::json(&body, endpoint)?;
    Ok((asked, ForwardBody::Json(body)))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("application/json")
}

/// Too large, or broken off.
fn unread(error: &(dyn std::error::Error + 'static), limit: usize) -> ApiError {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().contains("length limit exceeded") {
            return ApiError::too_large(limit);
        }
        next = error.source();
    }
    ApiError::invalid(None, "The body of the request could not be read.")
}

async fn form(request: Request) -> Result<(Asked, ForwardBody), ApiError> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| {
        ApiError::invalid(
            None,
            "The body has to be a form, with the header Content-Type: multipart/form-data.",
        )
    })?;
    let mut parts = Vec::new();
    loop {
        let field = match form.next_field().await {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(error) => return Err(unread(&error, BODY_LIMIT)),
        };
        if parts.len() == MOST_PARTS {
            return Err(ApiError::invalid(None, "The form has too many fields."));
        }
        let (name, file_name, content_type) = (
            field.name().unwrap_or_default().to_owned(),
            field.file_name().map(str::to_owned),
            field.content_type().map(str::to_owned),
        );
        let data = field.bytes().await.map_err(|error| unread(&error, BODY_LIMIT))?;
        parts.push(Part {
            name,
            file_name,
            content_type,
            data,
        });
    }
    Ok((Asked::form(&parts)?, ForwardBody::Form(parts)))
}
