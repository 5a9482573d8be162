//! Which models a plan lets its users choose.

use domain::{ErrorCode, PlanId};
use services::{Actor, Change, Ended, Error, LimitOwner, Reply};

use crate::app::{App, FREE, MODEL, complete, model, rich};

/// With the models `tester` (the default one), `other` and `third`.
async fn deck() -> App {
    let named = |name: &str| {
        let mut model = model();
        name.clone_into(&mut model.name);
        model
    };
    App::with_models(vec![model(), named("other"), named("third")]).await
}

async fn list(app: &App, owner: &Actor, models: &[&str]) -> Result<(), Error> {
    let models: Vec<String> = models.iter().map(|&name| name.to_owned()).collect();
    app.plans().set_models(owner, FREE, &models).await
}

async fn choose(app: &App, user: i64, chat: i64, name: &str) {
    let (job, incoming) = app.job(user, chat, "/model").await;
    let known = app.chats().meet(&incoming).await.unwrap();
    let reply = Reply {
        text: "done",
        parts: &[rich("done")],
        code: None,
        change: Change::Model(name.to_owned()),
    };
    assert!(app.chats().reply(&job, &incoming, &known, reply).await.unwrap());
    assert!(app.queue().end(&job, Ended::Done).await.unwrap());
}

/// Which model answers, and in the place of which other one it says that it does. `is_stored`: the answer is.
async fn ask(app: &App, user: i64, chat: i64, is_stored: bool) -> (String, Option<String>) {
    let (job, incoming) = app.job(user, chat, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let answer = complete("fine", 10, 10);
    let ended = if is_stored {
        let bodies = [rich("fine")];
        let chats = app.chats();
        let settled = chats.settle(&job, &incoming, &known, &question, &answer, &bodies);
        assert!(settled.await.unwrap());
        Ended::Done
    } else {
        Ended::Dead {
            error: "only asked".to_owned(),
        }
    };
    assert!(app.queue().end(&job, ended).await.unwrap());
    let instead_of = question.instead_of().map(|(chosen, answers)| {
        assert_eq!(answers, question.request.model);
        chosen.to_owned()
    });
    (question.request.model, instead_of)
}

#[tokio::test]
async fn a_plan_lists_what_its_users_choose_from_and_else_they_choose_from_all() {
    let app = deck().await;
    let owner = app.owner().await;
    assert_eq!(app.chats().models(&app.user(7).await), ["tester", "other", "third"]);
    list(&app, &owner, &["third", "other"]).await.unwrap();
    let known = app.user(7).await;
    assert_eq!(app.chats().models(&known), ["other", "third"]);
    let in_use = |bot: Option<&str>| app.chats().model(&known, bot).unwrap().name.clone();
    assert_eq!(
        (in_use(None), in_use(Some("third"))),
        ("other".to_owned(), "third".to_owned())
    );
    assert_eq!(in_use(Some(MODEL)), "other", "nor is it had through the bot");

    let unknown = list(&app, &owner, &["other", "nobody's"]).await;
    assert!(matches!(unknown, Err(Error::Invalid(_))), "{unknown:?}");
    let nobody = app.plans().set_models(&owner, PlanId(uuid::Uuid::nil()), &[]).await;
    assert!(matches!(nobody, Err(Error::NotFound(_))), "{nobody:?}");
    list(&app, &owner, &["other", "third"]).await.unwrap();
    let sheet = app.limits().sheet(&owner, &LimitOwner::Plan(FREE)).await.unwrap();
    let of_all: Vec<_> = sheet.models.unwrap();
    let of_all: Vec<_> = of_all.iter().map(|(listed, name)| (*listed, name.as_str())).collect();
    assert_eq!(of_all, [(false, "tester"), (true, "other"), (true, "third")]);
    let past: Vec<_> = sheet
        .history
        .iter()
        .map(|row| (row.action.as_str(), row.after.clone()))
        .collect();
    let after = serde_json::json!({ "models": ["other", "third"] });
    assert_eq!(past, [("plan.models", Some(after))], "the same again leaves no trace");
    let plans = app.plans().list(&owner).await.unwrap();
    let free = plans.iter().find(|plan| plan.id == FREE).unwrap();
    assert_eq!(free.models, ["other", "third"]);

    list(&app, &owner, &[]).await.unwrap();
    assert_eq!(app.chats().models(&app.user(7).await).len(), 3);
}

#[tokio::test]
async fn whose_choice_is_no_longer_allowed_gets_another_model_and_is_told_once() {
    let app = deck().await;
    let owner = app.owner().await;
    choose(&app, 7, 7, "third").await;
    assert_eq!(ask(&app, 7, 7, true).await, ("third".to_owned(), None));
    list(&app, &owner, &["other"]).await.unwrap();
    let told = ("other".to_owned(), Some("third".to_owned()));
    let untold = ("other".to_owned(), None);
    assert_eq!(ask(&app, 7, 7, false).await, told);
    assert_eq!(ask(&app, 7, 7, true).await, told, "the answer before was lost");
    assert_eq!(ask(&app, 7, 7, true).await, untold);
    // The choice is kept: it holds again where the plan does.
    list(&app, &owner, &["other", "third"]).await.unwrap();
    assert_eq!(ask(&app, 7, 7, true).await, ("third".to_owned(), None));
    // Chosen anew and lost again it is told again.
    choose(&app, 7, 7, "third").await;
    list(&app, &owner, &["other"]).await.unwrap();
    assert_eq!(ask(&app, 7, 7, true).await, told);

    // In a group each is told for themselves.
    choose(&app, 7, 50, "third").await;
    for user in [7, 8] {
        assert_eq!(ask(&app, user, 50, true).await, told);
        assert_eq!(ask(&app, user, 50, true).await, untold);
    }
}

#[tokio::test]
async fn a_plan_whose_models_are_all_gone_lets_nothing_through() {
    let app = deck().await;
    app.test.run("UPDATE plans SET models = '{retired}'").await;
    let known = app.user(7).await;
    assert!(app.chats().models(&known).is_empty() && app.chats().model(&known, Some(MODEL)).is_none());
    let (job, incoming) = app.job(7, 7, "hello").await;
    let refusal = app.refused(&job, &incoming).await;
    assert_eq!((refusal.code, refusal.limit), (ErrorCode::NoModel, None));
    // It stays among what is listed, so that staff can take it out.
    let sheet = app.limits().sheet(&app.owner().await, &LimitOwner::Plan(FREE)).await;
    assert!(sheet.unwrap().models.unwrap().contains(&(true, "retired".to_owned())));
}
