//! Deadlines, retry, cancellation and bills, against a provider that follows a script, in paused time.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use domain::ErrorCode;
use futures::{StreamExt, stream};

use super::*;
use crate::{ChunkStream, Provider, Role, Turn, models_from};

/// One thing that happens in a stream.
enum Step {
    Say(Chunk),
    Wait(u64),
    Fail(GatewayError),
    Hang,
}
use Step::{Fail, Hang, Say, Wait};

/// Answers each attempt by the next script.
struct Scripted(Mutex<VecDeque<Result<Vec<Step>, GatewayError>>>);

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn stream(&self, _request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        let script = self.0.lock().unwrap().pop_front().expect("one attempt too many");
        let steps = stream::iter(script?).filter_map(|step| async {
            match step {
                Say(chunk) => Some(Ok(chunk)),
                Fail(error) => Some(Err(error)),
                Wait(seconds) => {
                    sleep(Duration::from_secs(seconds)).await;
                    None
                }
                Hang => std::future::pending().await,
            }
        });
        Ok(steps.boxed())
    }

    async fn probe(&self, _model: &str) -> Result<(), GatewayError> {
        std::future::pending().await
    }
}

fn gateway<const N: usize>(scripts: [Result<Vec<Step>, GatewayError>; N]) -> Gateway {
    let provider = Arc::new(Scripted(Mutex::new(scripts.into())));
    let catalogue = Catalogue::from_settings(provider, models_from(Some("gpt-4o-mini,other")));
    Gateway::new(catalogue, Deadlines::default())
}

fn one_at_a_time<const N: usize>(scripts: [Result<Vec<Step>, GatewayError>; N]) -> Gateway {
    let provider = Arc::new(Scripted(Mutex::new(scripts.into())));
    let catalogue = Catalogue::from_settings(provider, models_from(Some("gpt-4o-mini"))).with_concurrency(1);
    Gateway::new(catalogue, Deadlines::default())
}

fn request() -> ChatRequest {
    ChatRequest {
        model: "gpt-4o-mini".into(),
        messages: vec![Turn {
            role: Role::User,
            text: "How are you?".into(),
        }],
        max_tokens: 100,
        user: "u".into(),
    }
}

async fn ask<const N: usize>(scripts: [Result<Vec<Step>, GatewayError>; N]) -> Answer {
    gateway(scripts)
        .answer(&request(), &CancellationToken::new(), |_| {})
        .await
}

fn text(text: &str) -> Step {
    Say(Chunk::Text(text.into()))
}

fn stop() -> Step {
    Say(Chunk::Finish("stop".into()))
}

fn used(prompt_tokens: i64, completion_tokens: i64) -> Step {
    Say(Chunk::Usage(Usage {
        prompt_tokens,
        completion_tokens,
        ..Usage::default()
    }))
}

fn busy(seconds: Option<u64>) -> GatewayError {
    GatewayError::Busy {
        retry_after: seconds.map(Duration::from_secs),
        detail: "slow down".into(),
    }
}

fn code(answer: &Answer) -> Option<ErrorCode> {
    answer.failure.as_ref().map(GatewayError::code)
}

#[tokio::test(start_paused = true)]
async fn a_plain_answer_is_streamed_and_priced_as_reported() {
    let gateway = gateway([Ok(vec![Wait(1), text("Fine"), text(", thanks"), stop(), used(10, 3)])]);
    let mut seen = Vec::new();
    let answer = gateway
        .answer(&request(), &CancellationToken::new(), |text| seen.push(text.to_owned()))
        .await;
    assert_eq!(seen, ["Fine", "Fine, thanks"]);
    assert_eq!(answer.finish, Finish::Complete("stop".into()));
    assert_eq!(answer.cost.nanos(), 10 * 150 + 3 * 600);
    assert!(answer.usage_reported && answer.failure.is_none() && answer.attempts == 1);
    assert_eq!(answer.first_token, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn the_first_token_has_a_deadline_and_is_not_asked_for_again() {
    for script in [vec![Hang], vec![text(""), Hang], vec![Wait(21), text("late"), stop()]] {
        let answer = ask([Ok(script)]).await;
        assert_eq!(
            (&answer.finish, code(&answer)),
            (&Finish::Failed, Some(ErrorCode::AiTimeout))
        );
        assert!((20..=21).contains(&answer.total.as_secs()) && answer.attempts == 1);
        assert_eq!((answer.usage, answer.cost), (Usage::default(), Money::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_between_tokens_keeps_what_came_and_bills_it() {
    let answer = ask([Ok(vec![text("One two three"), Hang])]).await;
    assert_eq!(
        (&answer.finish, code(&answer)),
        (&Finish::Cut, Some(ErrorCode::AiTimeout))
    );
    assert_eq!(answer.text, "One two three");
    assert_eq!(answer.usage.completion_tokens, i64::from(count_tokens("One two three")));
    assert_eq!(
        answer.usage.prompt_tokens,
        i64::from(estimate_prompt(&request().messages))
    );
    assert!(!answer.usage_reported && answer.cost > Money::ZERO && answer.total.as_secs() == 20);
}

#[tokio::test(start_paused = true)]
async fn a_drip_of_tokens_ends_at_the_overall_deadline() {
    let drip = (0..50).flat_map(|_| [text("x "), Wait(10)]).collect();
    let answer = ask([Ok(drip)]).await;
    assert_eq!((&answer.finish, answer.total.as_secs()), (&Finish::Cut, 120));
    assert!(answer.failure.unwrap().to_string().contains("the end of the answer"));
}

#[tokio::test(start_paused = true)]
async fn silent_thoughts_are_signs_of_life() {
    let answer = ask([Ok(vec![
        text(""),
        Wait(15),
        text(""),
        Wait(15),
        text("42"),
        stop(),
        used(1, 900),
    ])])
    .await;
    assert_eq!((answer.text.as_str(), answer.total.as_secs()), ("42", 30));
    assert_eq!(
        (answer.first_token, answer.usage.completion_tokens),
        (Some(Duration::from_secs(30)), 900)
    );
}

#[tokio::test(start_paused = true)]
async fn one_retry_before_any_text() {
    let good = || Ok(vec![text("ok"), stop(), used(1, 1)]);
    for first in [
        Err(busy(None)),
        Err(GatewayError::down("x")),
        Ok(vec![Fail(GatewayError::down("x"))]),
        Ok(vec![]),
    ] {
        let answer = ask([first, good()]).await;
        assert_eq!((answer.text.as_str(), answer.attempts), ("ok", 2));
        assert!((100..=300).contains(&answer.total.as_millis()), "{:?}", answer.total);
    }
    let answer = ask([Err(GatewayError::down("x")), Err(busy(None))]).await;
    assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiBusy), 2));
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_is_honoured_and_a_long_one_ends_it() {
    let answer = ask([Err(busy(Some(3))), Ok(vec![text("ok"), stop(), used(1, 1)])]).await;
    assert_eq!((answer.total.as_secs(), answer.attempts), (3, 2));
    let answer = ask([Err(busy(Some(6)))]).await;
    assert_eq!(
        (code(&answer), answer.attempts, answer.total.as_secs()),
        (Some(ErrorCode::AiBusy), 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_would_be_refused_again_is_not_retried() {
    let auth = GatewayError::Auth {
        status: Some(401),
        detail: "no".into(),
    };
    for (error, expected) in [
        (auth, ErrorCode::AiAuth),
        (GatewayError::refused("no"), ErrorCode::AiRefused),
    ] {
        let answer = ask([Err(error)]).await;
        assert_eq!((code(&answer), answer.attempts), (Some(expected), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn after_text_nothing_is_retried() {
    for ending in [vec![Fail(busy(None))], vec![Fail(GatewayError::down("gone"))], vec![]] {
        let script = [text("Half an")].into_iter().chain(ending).collect();
        let answer = ask([Ok(script)]).await;
        assert_eq!(
            (&answer.finish, code(&answer), answer.attempts),
            (&Finish::Cut, Some(ErrorCode::AiCut), 1)
        );
        assert!(answer.text == "Half an" && !answer.usage_reported && answer.cost > Money::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_a_failure() {
    for word in ["stop", "content_filter"] {
        let answer = ask([Ok(vec![text(" \n"), Say(Chunk::Finish(word.into())), used(7, 0)])]).await;
        assert_eq!(
            (&answer.finish, code(&answer)),
            (&Finish::Failed, Some(ErrorCode::AiEmpty))
        );
        assert!(answer.failure.unwrap().cause().contains("empty answer"));
        assert!(answer.usage_reported && answer.usage.prompt_tokens == 7);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_is_too_long_is_asked_with_less_of_its_past() {
    let too_long = || {
        Err(GatewayError::Context {
            status: Some(400),
            detail: "too long".into(),
        })
    };
    let turn = |role, text: &str| Turn {
        role,
        text: text.into(),
    };
    let mut request = request();
    request.messages = vec![
        turn(Role::System, "be kind"),
        turn(Role::User, "first"),
        turn(Role::Assistant, "yes"),
        turn(Role::User, "now"),
    ];
    let script = vec![text("Hi"), stop(), used(3, 1)];
    let answer = gateway([too_long(), Ok(script)])
        .answer(&request, &CancellationToken::new(), |_| {})
        .await;
    assert_eq!((answer.text.as_str(), code(&answer), answer.attempts), ("Hi", None, 2));
    let less = without_older_half(&request).unwrap();
    let texts: Vec<&str> = less.messages.iter().map(|turn| turn.text.as_str()).collect();
    // Not beginning with the model's own words, which some models refuse.
    assert_eq!(texts, ["be kind", "now"]);
    // With nothing left to leave out the person is told, and nothing is billed.
    let answer = gateway([too_long(), too_long()])
        .answer(&request, &CancellationToken::new(), |_| {})
        .await;
    assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiContext), 2));
    assert_eq!(answer.cost, Money::ZERO);
}

#[tokio::test(start_paused = true)]
async fn usage_may_be_early_late_zero_or_missing() {
    let answer = ask([Ok(vec![used(5, 0), text("ok"), stop(), Wait(10), used(5, 9)])]).await;
    assert_eq!(
        (answer.usage.completion_tokens, answer.usage_reported),
        (0, true),
        "told with the end, so not waited for"
    );
    let answer = ask([Ok(vec![text("ok"), stop(), Wait(10), used(5, 9), Hang])]).await;
    assert_eq!((answer.usage.completion_tokens, answer.total.as_millis()), (9, 10_250));
    let answer = ask([Ok(vec![text("ok"), stop(), used(0, 0)])]).await;
    assert_eq!(
        (answer.usage, answer.usage_reported, answer.cost),
        (Usage::default(), true, Money::ZERO)
    );
    let answer = ask([Ok(vec![text("ok"), stop()])]).await;
    assert_eq!((answer.usage.completion_tokens, answer.usage_reported), (1, false));
    let answer = ask([Ok(vec![text("ok"), stop(), Hang])]).await;
    assert_eq!(
        (answer.finish, answer.total.as_secs()),
        (Finish::Complete("stop".into()), 20)
    );
    let answer = ask([Ok(vec![text("ok"), stop(), Fail(GatewayError::down("x"))])]).await;
    assert!(answer.failure.is_none() && !answer.usage_reported);
}

#[tokio::test(start_paused = true)]
async fn usage_told_while_the_answer_grows_is_a_lower_bound() {
    let answer = ask([Ok(vec![used(50, 1), text("one two three four five"), Hang])]).await;
    assert_eq!(answer.usage.prompt_tokens, 50);
    assert_eq!(
        answer.usage.completion_tokens,
        i64::from(count_tokens("one two three four five"))
    );
    assert!(!answer.usage_reported);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_attempt_reported_is_billed_with_the_next() {
    let first = || Ok(vec![used(7, 2), Fail(GatewayError::down("x"))]);
    let total = |prompt_tokens, completion_tokens| Usage {
        prompt_tokens,
        completion_tokens,
        ..Usage::default()
    };
    let answer = ask([first(), Ok(vec![text("ok"), stop(), used(5, 1)])]).await;
    assert_eq!((answer.usage, answer.usage_reported), (total(12, 3), true));
    assert_eq!(answer.cost.nanos(), 12 * 150 + 3 * 600);
    let answer = ask([first(), Err(GatewayError::down("x"))]).await;
    assert_eq!((answer.usage, answer.usage_reported), (total(7, 2), true));
    let answer = ask([first(), Ok(vec![text("ok"), stop()])]).await;
    assert_eq!((answer.usage.completion_tokens, answer.usage_reported), (3, false));
    // Stopped in the pause before the second attempt.
    let (question, cancel) = (request(), CancellationToken::new());
    let gateway = gateway([Ok(vec![used(7, 2), Fail(busy(Some(5)))])]);
    let answer = tokio::join!(gateway.answer(&question, &cancel, |_| {}), async {
        sleep(Duration::from_secs(2)).await;
        cancel.cancel();
    })
    .0;
    assert_eq!((answer.finish, answer.usage), (Finish::Stopped, total(7, 2)));
    assert!(answer.usage_reported);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_at_once_and_bills_what_was_made() {
    let cancel = CancellationToken::new();
    let gateway = gateway([Ok(vec![text("One"), Wait(1), text(" two"), Hang])]);
    let stopper = cancel.clone();
    let answer = gateway
        .answer(&request(), &cancel, move |text| {
            if text == "One two" {
                stopper.cancel();
            }
        })
        .await;
    assert_eq!((answer.finish, answer.text.as_str()), (Finish::Stopped, "One two"));
    assert!(answer.failure.is_none() && !answer.usage_reported);
    assert_eq!((answer.usage.completion_tokens, answer.total.as_secs()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn stopping_before_the_first_token_bills_the_question_only_if_it_was_taken() {
    for (script, prompt) in [
        (Ok(vec![Hang]), i64::from(estimate_prompt(&request().messages))),
        (Err(busy(Some(5))), 0),
    ] {
        let (question, cancel) = (request(), CancellationToken::new());
        let gateway = gateway([script]);
        let answer = tokio::join!(gateway.answer(&question, &cancel, |_| {}), async {
            sleep(Duration::from_secs(2)).await;
            cancel.cancel();
        })
        .0;
        assert_eq!((&answer.finish, answer.usage.prompt_tokens), (&Finish::Stopped, prompt));
        assert_eq!((answer.usage.completion_tokens, answer.total.as_secs()), (0, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_behind_the_end_waits_for_the_usage_but_not_for_long() {
    for (script, millis, usage, took) in [
        (vec![text("ok"), stop(), Wait(2), used(5, 9)], 1900, Some(9), 2000),
        (vec![text("ok"), stop(), Hang], 1900, None, 2150),
        (vec![text("ok"), Wait(2), stop(), used(5, 9)], 1900, None, 1900),
    ] {
        let (question, cancel) = (request(), CancellationToken::new());
        let gateway = gateway([Ok(script)]);
        let answer = tokio::join!(gateway.answer(&question, &cancel, |_| {}), async {
            sleep(Duration::from_millis(millis)).await;
            cancel.cancel();
        })
        .0;
        let told = answer.usage_reported.then_some(answer.usage.completion_tokens);
        assert_eq!((told, answer.total.as_millis()), (usage, took));
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_off_the_list_is_refused_without_asking() {
    let gateway = gateway([]);
    let request = ChatRequest {
        model: "gpt-9".into(),
        ..request()
    };
    let answer = gateway.answer(&request, &CancellationToken::new(), |_| {}).await;
    assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiRefused), 0));
    assert!(!gateway.is_demo() && gateway.default_model().name == "gpt-4o-mini" && gateway.model("other").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_probe_has_a_deadline() {
    let error = gateway([]).probe("gpt-4o-mini").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AiTimeout);
}

#[test]
fn an_empty_list_means_the_built_in_one() {
    let provider = Arc::new(Scripted(Mutex::default()));
    let catalogue = Catalogue::from_settings(provider, Vec::new());
    assert_eq!(Gateway::new(catalogue, Deadlines::default()).models().len(), 1);
}

#[test]
fn every_answer_is_counted_once() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            ask([Ok(vec![text("ok"), stop(), used(5, 2)])]).await;
            ask([Err(GatewayError::down("x")), Err(GatewayError::down("x"))]).await;
        });
    });
    let page = recorder.handle().render();
    for line in [
        r#"botdeck_ai_requests_total{provider="scripted",model="gpt-4o-mini",outcome="ok"} 1"#,
        r#"botdeck_ai_requests_total{provider="scripted",model="gpt-4o-mini",outcome="BD-AI-DOWN"} 1"#,
        r#"botdeck_ai_tokens_total{kind="prompt"} 5"#,
        r#"botdeck_ai_tokens_total{kind="completion"} 2"#,
        r#"botdeck_ai_first_token_seconds_count{provider="scripted",model="gpt-4o-mini"} 1"#,
        r#"botdeck_ai_seconds_count{provider="scripted",model="gpt-4o-mini"} 2"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_at_once_than_there_are_places() {
    let slow = || Ok(vec![text("Fine"), Wait(8), text(", thanks"), stop(), used(10, 3)]);
    let gateway = one_at_a_time([slow(), slow(), slow()]);
    let (request, nobody) = (request(), CancellationToken::new());
    let ask = || gateway.answer(&request, &nobody, |_| {});
    let (first, second, third, fourth) = tokio::join!(ask(), ask(), ask(), ask());
    // Each starts when the one before it has ended; the fourth has waited as long as for a first token.
    for (answer, seconds) in [(first, 8), (second, 16), (third, 24)] {
        assert_eq!(answer.finish, Finish::Complete("stop".into()));
        assert_eq!(answer.total.as_secs(), seconds);
    }
    assert_eq!((code(&fourth), fourth.attempts), (Some(ErrorCode::AiBusy), 0));
    assert_eq!(fourth.total.as_secs(), 20);
    assert_eq!(fourth.cost, Money::ZERO);
    assert_eq!(fourth.usage, Usage::default());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_can_be_stopped() {
    let gateway = one_at_a_time([Ok(vec![Wait(8), text("Fine"), stop(), used(10, 3)])]);
    let (request, nobody, cancel) = (request(), CancellationToken::new(), CancellationToken::new());
    let second = async {
        tokio::task::yield_now().await;
        cancel.cancel();
        gateway.answer(&request, &cancel, |_| {}).await
    };
    let (first, second) = tokio::join!(gateway.answer(&request, &nobody, |_| {}), second);
    assert_eq!(first.text, "Fine");
    assert_eq!((second.finish, second.attempts), (Finish::Stopped, 0));
    assert_eq!(second.usage, Usage::default());
}
