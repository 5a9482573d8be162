//! What a change of limits would do, before it is saved; and what is shown of those that are set.

use chrono::TimeDelta;
use domain::{LimitKind, Permission, PlanId, Role, Scope, views::limits::LimitEffect};
use services::{Actor, Error, LimitOwner, LimitSetting};

use crate::app::{App, FREE, MODEL};

const DAY: LimitKind = LimitKind::MessagesPerDay;

fn set(kind: LimitKind, amount: Option<i64>) -> [LimitSetting; 1] {
    [LimitSetting::Limit(kind, amount)]
}

async fn preview(app: &App, owner: &Actor, whose: &LimitOwner, settings: &[LimitSetting]) -> LimitEffect {
    app.limits().preview(owner, whose, settings).await.unwrap()
}

/// (people, stopped before, stopped after) of the only limit that would change.
fn reach(effect: &LimitEffect) -> (i64, i64, i64) {
    assert_eq!(effect.kinds.len(), 1, "{effect:?}");
    let reach = &effect.kinds[0].reach;
    (reach.people, reach.stopped_before, reach.stopped_after)
}

fn heaviest(effect: &LimitEffect) -> Vec<(&str, i64, Option<i64>)> {
    let reach = &effect.kinds[0].reach;
    let people = reach.heaviest.iter();
    people.map(|user| (user.name.as_str(), user.used, user.limit)).collect()
}

/// Three people of the free plan with 3, 2 and 1 messages today, and one of another plan.
async fn people(app: &App) {
    for (user, messages) in [(1, 3), (2, 2), (3, 1), (4, 5)] {
        for _ in 0..messages {
            app.talk(user, "hello", "hi").await;
        }
    }
    app.test
        .run("UPDATE users SET plan_id = (SELECT id FROM plans WHERE name = 'plus') WHERE external_id = 4 AND transport = 'telegram'")
        .await;
}

#[tokio::test]
async fn a_preview_says_who_would_be_stopped_names_them_and_changes_nothing() {
    let app = App::new().await;
    people(&app).await;
    let (owner, plan) = (app.owner().await, LimitOwner::Plan(FREE));
    let lowered = preview(&app, &owner, &plan, &set(DAY, Some(2))).await;
    assert_eq!(reach(&lowered), (3, 0, 2));
    assert_eq!(
        heaviest(&lowered),
        [
            ("Person 1", 3, Some(2)),
            ("Person 2", 2, Some(2)),
            ("Person 3", 1, Some(2))
        ]
    );
    assert_eq!(lowered.kinds[0].reach.resets_at, Some(DAY.period().reset(app.now())));
    assert!(
        !lowered.kinds[0].counts_from_now,
        "the usual windows are counted in any case"
    );
    // None allowed stops those as well who have used nothing.
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(DAY, Some(0))).await),
        (3, 0, 3)
    );
    assert_eq!(app.test.count("limits").await, 0);
    assert_eq!(app.test.count("audit WHERE action LIKE '%limits%'").await, 0);

    app.limits().set(&owner, &plan, &set(DAY, Some(2))).await.unwrap();
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(DAY, Some(3))).await),
        (3, 2, 1)
    );
    assert_eq!(reach(&preview(&app, &owner, &plan, &set(DAY, None)).await), (3, 2, 0));
    let same = preview(&app, &owner, &plan, &set(DAY, Some(2))).await;
    assert!(same.kinds.is_empty() && same.changes.limits.is_empty());
    // Tomorrow everybody begins anew.
    app.clock.advance(TimeDelta::days(1));
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(DAY, Some(1))).await),
        (3, 0, 0)
    );
}

#[tokio::test]
async fn what_would_be_saved_is_what_the_preview_has_shown() {
    let app = App::new().await;
    let (owner, plan) = (app.owner().await, LimitOwner::Plan(FREE));
    let settings = [
        LimitSetting::Limit(DAY, Some(7)),
        LimitSetting::Limit(LimitKind::TokensPerDay, None),
        LimitSetting::Zone("Europe/Berlin".to_owned()),
        LimitSetting::Soft(50),
    ];
    let shown = preview(&app, &owner, &plan, &settings).await.changes;
    let saved = app.limits().set(&owner, &plan, &settings).await.unwrap();
    assert_eq!(shown, saved);
    assert_eq!(saved.limits.len(), 1, "none is what there was of tokens");
    assert_eq!(saved.zone, Some(["UTC".to_owned(), "Europe/Berlin".to_owned()]));
    for wrong in [LimitSetting::Zone("Mars/Olympus".to_owned()), LimitSetting::Soft(0)] {
        let refused = app.limits().preview(&owner, &plan, &[wrong]).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let nobody = LimitOwner::Plan(PlanId(uuid::Uuid::now_v7()));
    let missing = app.limits().preview(&owner, &nobody, &set(DAY, Some(1))).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
}

#[tokio::test]
async fn own_limits_and_boosts_count_in_a_preview_as_they_do_in_a_call() {
    let app = App::new().await;
    people(&app).await;
    let (owner, plan) = (app.owner().await, LimitOwner::Plan(FREE));
    let (first, second) = (app.user(1).await.user, app.user(2).await.user);
    app.limit(DAY, 10).await;
    app.limit_of(LimitOwner::User(second), DAY, 1).await;
    let tomorrow = app.now() + TimeDelta::days(1);
    app.limits()
        .boost(&owner, first, DAY, Some((20, tomorrow)))
        .await
        .unwrap();
    // The first is boosted beyond three, the second has one of their own.
    let effect = preview(&app, &owner, &plan, &set(DAY, Some(3))).await;
    assert_eq!(reach(&effect), (3, 1, 1));
    assert_eq!(
        heaviest(&effect),
        [
            ("Person 1", 3, Some(20)),
            ("Person 2", 2, Some(1)),
            ("Person 3", 1, Some(3))
        ]
    );
    // Of one user alone: the plan's ten still hold when the own one goes.
    let own = LimitOwner::User(second);
    let effect = preview(&app, &owner, &own, &set(DAY, None)).await;
    assert_eq!(
        (reach(&effect), heaviest(&effect)),
        ((1, 1, 0), vec![("Person 2", 2, Some(10))])
    );
}

#[tokio::test]
async fn of_what_many_share_the_use_of_all_is_shown_and_who_uses_most() {
    let app = App::new().await;
    let (owner, bot) = (app.owner().await, LimitOwner::Bot(app.bot));
    app.limit_of(bot.clone(), DAY, 100).await;
    people(&app).await;
    for whose in [bot, LimitOwner::Deployment, LimitOwner::Model(MODEL.to_owned())] {
        let is_bot = matches!(whose, LimitOwner::Bot(_));
        let effect = preview(&app, &owner, &whose, &set(DAY, Some(11))).await;
        let kind = &effect.kinds[0];
        assert_eq!(kind.counts_from_now, !is_bot, "a limit that is new has counted nothing");
        let used = kind.reach.shared_used;
        assert_eq!(used, Some(if is_bot { 11 } else { 0 }), "{whose}");
        assert_eq!(reach(&effect), (4, 0, if is_bot { 4 } else { 0 }), "{whose}");
        assert_eq!(
            heaviest(&effect)[..2],
            [("Person 4", 5, None), ("Person 1", 3, None)],
            "{whose}"
        );
    }
    // A boost holds whatever the limit under it is.
    let tomorrow = app.now() + TimeDelta::days(1);
    let bot = LimitOwner::Bot(app.bot);
    let boost = Some((200, tomorrow));
    app.limits().boost(&owner, bot.clone(), DAY, boost).await.unwrap();
    let effect = preview(&app, &owner, &bot, &set(DAY, Some(11))).await;
    assert_eq!(reach(&effect), (4, 0, 0));
    assert!(!effect.kinds[0].reach.used_up_after);
    // A day that begins at another hour begins anew.
    let moved = [LimitSetting::Zone("Pacific/Kiritimati".to_owned())];
    let effect = preview(&app, &owner, &bot, &moved).await;
    assert!(effect.kinds[0].counts_from_now);
    assert_eq!(effect.kinds[0].reach.shared_used, Some(0));
    let none = app.limits().preview(&owner, &LimitOwner::Deployment, &moved).await;
    assert!(matches!(none, Err(Error::Conflict(_))), "{none:?}");
}

#[tokio::test]
async fn requests_of_a_minute_are_shown_where_many_share_them() {
    let app = App::new().await;
    let owner = app.owner().await;
    let minute = LimitKind::MessagesPerMinute;
    app.limit_of(LimitOwner::Bot(app.bot), minute, 60).await;
    app.limit(minute, 60).await;
    app.talk(1, "hello", "hi").await;
    let effect = preview(&app, &owner, &LimitOwner::Bot(app.bot), &set(minute, Some(1))).await;
    assert_eq!(effect.kinds[0].reach.shared_used, Some(1));
    let bars = app
        .limits()
        .sheet(&owner, &LimitOwner::Bot(app.bot))
        .await
        .unwrap()
        .bars;
    assert_eq!((bars.len(), bars[0].used, bars[0].limit), (1, Some(1), Some(60)));
}

/// Nobody reads of the minute that runs before it is over, so the last seven days are told.
#[tokio::test]
async fn a_minute_of_each_user_is_judged_by_the_busiest_of_the_last_days() {
    let app = App::new().await;
    let (owner, plan) = (app.owner().await, LimitOwner::Plan(FREE));
    let minute = LimitKind::MessagesPerMinute;
    // Three within four seconds, then three within three minutes; and one of another plan with five.
    people(&app).await;
    for _ in 0..3 {
        app.clock.advance(TimeDelta::seconds(59));
        app.talk(3, "hello", "hi").await;
    }
    let effect = preview(&app, &owner, &plan, &set(minute, Some(1))).await;
    assert_eq!(reach(&effect), (3, 0, 2));
    assert_eq!(
        heaviest(&effect),
        [
            ("Person 1", 3, Some(1)),
            ("Person 2", 2, Some(1)),
            ("Person 3", 1, Some(1))
        ]
    );
    let week_ago = app.now() - TimeDelta::days(7);
    assert_eq!(effect.kinds[0].reach.minutes_since, Some(week_ago));
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(minute, Some(3))).await),
        (3, 0, 0)
    );
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(minute, Some(0))).await),
        (3, 0, 3)
    );
    app.limit(minute, 2).await;
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(minute, None)).await),
        (3, 1, 0)
    );
    // Of one user alone, whom the plan's two still hold.
    let first = LimitOwner::User(app.user(1).await.user);
    let effect = preview(&app, &owner, &first, &set(minute, Some(9))).await;
    assert_eq!(
        (reach(&effect), heaviest(&effect)),
        ((1, 1, 1), vec![("Person 1", 3, Some(2))])
    );
    // The seventh day ends.
    app.clock.advance(TimeDelta::days(8));
    assert_eq!(
        reach(&preview(&app, &owner, &plan, &set(minute, Some(0))).await),
        (3, 0, 0)
    );
}

#[tokio::test]
async fn a_sheet_has_the_use_and_the_past_of_its_limits_and_of_no_others() {
    let app = App::new().await;
    let owner = app.owner().await;
    let bot = LimitOwner::Bot(app.bot);
    app.limits()
        .set(&owner, &LimitOwner::Deployment, &set(DAY, Some(50)))
        .await
        .unwrap();
    app.limits().set(&owner, &bot, &set(DAY, Some(4))).await.unwrap();
    app.limits().set(&owner, &bot, &set(DAY, Some(5))).await.unwrap();
    app.limits().set(&owner, &bot, &set(DAY, Some(5))).await.unwrap();
    for _ in 0..4 {
        app.talk(1, "hello", "hi").await;
    }
    let sheet = app.limits().sheet(&owner, &bot).await.unwrap();
    assert_eq!(
        (
            sheet.name.as_str(),
            sheet.limits.iter().find(|limit| limit.0 == DAY).unwrap().1
        ),
        ("Bot", Some(5))
    );
    assert_eq!((sheet.bars[0].used, sheet.bars[0].near), (Some(4), true));
    let past: Vec<_> = sheet
        .history
        .iter()
        .map(|row| row.after.clone().unwrap()["messages_per_day"].clone())
        .collect();
    assert_eq!(past, ["5", "4"], "newest first; a save that changes nothing is none");

    // The same where people look for them.
    let board = app.bots().board(&owner).await.unwrap();
    let card = board.bots.iter().find(|card| card.row.id == app.bot).unwrap();
    assert_eq!(card.limits, sheet.bars);
    let listed = app.limits().in_use(&owner).await.unwrap();
    let owners: Vec<_> = listed.iter().map(|one| (one.owner.clone(), one.bars[0].used)).collect();
    assert_eq!(owners, [(bot.clone(), Some(4)), (LimitOwner::Deployment, Some(4))]);

    // Who may not read the trail sees no history, and who may not know names no user.
    let viewer = app.staff(Role::Viewer).await;
    let viewer = app.actor(viewer, Permission::ReadLimits).await.unwrap();
    assert!(app.limits().sheet(&viewer, &bot).await.unwrap().history.is_empty());
    let user = LimitOwner::User(app.user(1).await.user);
    assert!(matches!(
        app.limits().sheet(&viewer, &user).await,
        Err(Error::Forbidden(_))
    ));
}

#[tokio::test]
async fn limits_can_be_set_on_every_bot_and_every_name() {
    let app = App::new().await;
    let owners = app.limits().owners(&app.owner().await).await.unwrap();
    assert_eq!(owners[0].owner, LimitOwner::Deployment);
    let bots = owners
        .iter()
        .filter(|one| one.owner.parts().is_some_and(|(scope, _)| scope == Scope::Bot));
    assert_eq!(bots.count(), 2, "that of the playground, too");
}
