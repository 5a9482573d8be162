use std::future::Future;

use domain::{
    BlockReason, LimitKind, PlanId, PlanName, Role, UserId,
    views::{AuditQuery, IntakeMode, jobs::JobAction},
};
use futures::future::join_all;
use services::{Actor, Error, KeyRing, Origin, Unidentified, Verified};

use crate::app::{App, FREE, PASSWORD, password};

const PLUS: PlanId = PlanId(uuid::Uuid::from_u128(0x01930000_0000_7000_8000_000000000002));

fn reason(text: &str) -> BlockReason {
    text.parse().unwrap()
}

fn plan(name: &str) -> PlanName {
    name.parse().unwrap()
}

/// Runs what staff does and says which rows it left in the trail.
async fn left<T, E: std::fmt::Debug>(app: &App, act: impl Future<Output = Result<T, E>>) -> (bool, Vec<String>) {
    let before = app.test.one::<i64>("SELECT coalesce(max(id), 0) FROM audit").await;
    let done = act.await.is_ok();
    (
        done,
        app.test
            .column(&format!("SELECT action FROM audit WHERE id > {before} ORDER BY id"))
            .await,
    )
}

macro_rules! leaves {
    ($app:expr, $act:expr, one $action:literal) => {
        assert_eq!(left(&$app, $act).await, (true, vec![$action.to_owned()]))
    };
    ($app:expr, $act:expr, refused) => {
        assert_eq!(left(&$app, $act).await, (false, vec![]), stringify!($act))
    };
}

#[tokio::test]
async fn everything_staff_does_leaves_one_row_and_what_is_refused_leaves_none() {
    let app = App::new().await;
    let owner = app.owner().await;
    let user = app.talk(7, "hello", "hi").await;
    let (nobody, no_plan) = (UserId(uuid::Uuid::now_v7()), PlanId(uuid::Uuid::now_v7()));
    let (users, plans, bots, auth, talks) = (app.users(), app.plans(), app.bots(), app.auth(), app.conversations());

    leaves!(app, users.block(&owner, user.user, reason("spam")), one "user.block");
    leaves!(app, users.block(&owner, user.user, reason("spam")), refused);
    leaves!(app, users.block(&owner, nobody, reason("spam")), refused);
    leaves!(app, users.unblock(&owner, user.user), one "user.unblock");
    leaves!(app, users.unblock(&owner, user.user), refused);

    leaves!(app, users.set_plan(&owner, user.user, PLUS), one "user.plan");
    leaves!(app, users.set_plan(&owner, user.user, PLUS), refused);
    leaves!(app, users.set_plan(&owner, user.user, no_plan), refused);
    leaves!(app, users.set_plan(&owner, nobody, FREE), refused);

    leaves!(app, plans.create(&owner, plan("gold")), one "plan.create");
    leaves!(app, plans.create(&owner, plan("GOLD")), refused);
    let some = || {
        vec![
            (LimitKind::MessagesPerDay, Some(5)),
            (LimitKind::MoneyPerMonth, Some(1_500_000_000)),
        ]
    };
    leaves!(app, plans.set_limits(&owner, FREE, some()), one "plan.limits");
    leaves!(app, plans.set_limits(&owner, no_plan, some()), refused);
    leaves!(
        app,
        plans.set_limits(&owner, FREE, vec![(LimitKind::TokensPerDay, Some(-1))]),
        refused
    );
    assert_eq!(
        left(&app, plans.set_limits(&owner, FREE, some())).await,
        (true, vec![]),
        "nothing was changed"
    );

    let token = |text: &str| text.to_owned().into();
    leaves!(app, bots.add(&owner, token("55:secret-token"), IntakeMode::Polling), one "bot.add");
    leaves!(app, bots.add(&owner, token("55:other-token"), IntakeMode::Webhook), one "bot.replace_token");
    leaves!(
        app,
        bots.add(&owner, token("not a token"), IntakeMode::Polling),
        refused
    );
    *app.telegram.refuses.lock().unwrap() = Some(Unidentified::Unknown);
    leaves!(
        app,
        bots.add(&owner, token("56:secret-token"), IntakeMode::Polling),
        refused
    );
    leaves!(app, bots.set_enabled(&owner, app.bot, true), refused);
    leaves!(app, bots.set_enabled(&owner, app.bot, false), one "bot.stop");
    leaves!(app, bots.set_enabled(&owner, app.bot, false), refused);
    leaves!(app, bots.set_enabled(&owner, app.bot, true), one "bot.start");

    leaves!(app, talks.transcript(&owner, user.conversation, None), one "conversation.read");
    let none = talks.transcript(&owner, domain::ConversationId(uuid::Uuid::now_v7()), None);
    assert_eq!(left(&app, none).await, (true, vec![]));
    leaves!(
        app,
        talks.transcript(&owner, user.conversation, Some("nonsense".to_owned())),
        refused
    );

    let email = |text: &str| text.parse().unwrap();
    leaves!(app, auth.create_staff(&owner, email("ann@example.org"), Role::Support, password(PASSWORD)), one "staff.create");
    leaves!(
        app,
        auth.create_staff(&owner, email("Ann@Example.org"), Role::Owner, password(PASSWORD)),
        refused
    );
    leaves!(app, auth.reset_password(&owner, &email("ann@example.org"), password("another long one")), one "staff.reset_password");
    leaves!(
        app,
        auth.reset_password(&owner, &email("bob@example.org"), password("another long one")),
        refused
    );
    let ann = email("ann@example.org");
    leaves!(app, auth.sign_in(&ann, &password("another long one"), Origin::default()), one "staff.sign_in");
    leaves!(
        app,
        auth.sign_in(&ann, &password("the wrong one"), Origin::default()),
        refused
    );
    let id = auth
        .sign_in(&ann, &password("another long one"), Origin::default())
        .await
        .unwrap();
    leaves!(app, auth.sign_out(id, Origin::default()), one "staff.sign_out");

    let rows = u64::try_from(app.test.count("audit").await).unwrap();
    assert_eq!(app.audit().verify().await.unwrap(), Verified::Whole { rows });
    let secrets = "audit WHERE audit::text ~ 'secret-token|other-token|another long one|argon2'";
    assert_eq!(app.test.count(secrets).await, 0, "a secret is in the trail");
}

/// Everything that staff can change.
const STATE: &str = "SELECT coalesce(md5(string_agg(line, ' ' ORDER BY line)), '') FROM (
    SELECT 'users' || t::text FROM users t UNION ALL SELECT 'plans' || t::text FROM plans t
    UNION ALL SELECT 'limits' || t::text FROM limits t UNION ALL SELECT 'bots' || t::text FROM bots t
    UNION ALL SELECT 'staff' || t::text FROM staff t UNION ALL SELECT 'jobs' || t::text FROM jobs t
    UNION ALL SELECT 'sessions' || t::text FROM sessions t) AS lines (line)";

macro_rules! is_refused {
    ($app:expr, $($act:expr),+ $(,)?) => {{
        let before: String = $app.test.one(STATE).await;
        $(
            assert!($act.await.is_err(), "done without a trace: {}", stringify!($act));
            assert_eq!($app.test.one::<String>(STATE).await, before, "half done: {}", stringify!($act));
        )+
    }};
}

#[tokio::test]
async fn a_change_whose_row_cannot_be_written_does_not_happen() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (user, blocked) = (app.user(7).await, app.user(8).await);
    let (users, plans, bots, auth, jobs) = (app.users(), app.plans(), app.bots(), app.auth(), app.jobs_board());
    users.block(&owner, blocked.user, reason("spam")).await.unwrap();
    let (job, _) = app.job(9, 9, "hello").await;
    let dead = services::Ended::Dead {
        error: "broken".to_owned(),
    };
    assert!(app.queue().end(&job, dead).await.unwrap());
    app.test
        .run("ALTER TABLE audit ADD CONSTRAINT full_disk CHECK (id < 0) NOT VALID")
        .await;

    let token = |text: &str| text.to_owned().into();
    let limits = || vec![(LimitKind::MessagesPerDay, Some(5))];
    let (ann, its_owner) = ("ann@example.org".parse().unwrap(), "owner@example.org".parse().unwrap());
    let persona = "A pirate".parse().unwrap();
    is_refused!(
        app,
        users.block(&owner, user.user, reason("spam")),
        users.unblock(&owner, blocked.user),
        users.set_plan(&owner, user.user, PLUS),
        plans.create(&owner, plan("gold")),
        plans.set_limits(&owner, FREE, limits()),
        bots.add(&owner, token("55:secret-token"), IntakeMode::Polling),
        bots.set_enabled(&owner, app.bot, false),
        bots.set_manner(&owner, app.bot, persona, None),
        bots.set_mode(&owner, app.bot, IntakeMode::Webhook),
        bots.replace_token(&owner, app.bot, token("1:another-token")),
        bots.restart(&owner, app.bot),
        jobs.act(&owner, &[job.id], JobAction::Retry),
        jobs.act(&owner, &[job.id], JobAction::Discard),
        app.conversations().transcript(&owner, user.conversation, None),
        auth.create_staff(&owner, ann, Role::Viewer, password(PASSWORD)),
        auth.reset_password(&owner, &its_owner, password("another long one")),
        auth.sign_in(&its_owner, &password(PASSWORD), Origin::default()),
    );
}

#[tokio::test]
async fn a_row_says_who_did_what_to_whom_from_where_and_what_it_was_before() {
    let app = App::new().await;
    let owner = app.owner().await;
    let user = app.user(7).await;
    app.plans()
        .set_limits(&owner, FREE, vec![(LimitKind::MoneyPerMonth, Some(2_500_000_000))])
        .await
        .unwrap();
    app.users().block(&owner, user.user, reason("spam")).await.unwrap();
    let page = app.audit().list(&owner, AuditQuery::default()).await.unwrap();
    let [block, limits, ..] = &page.rows[..] else {
        panic!("{page:?}")
    };
    assert_eq!(
        (block.action.as_str(), block.actor.as_str(), block.target_name.as_str()),
        ("user.block", "owner", "Person 7")
    );
    assert_eq!((block.at, block.ip.as_deref()), (app.now(), Some("192.0.2.1")));
    assert_eq!(block.after.as_ref().unwrap()["reason"], "spam");
    assert_eq!(
        limits.before.as_ref().unwrap()["money_per_month"],
        serde_json::Value::Null
    );
    assert_eq!(limits.after.as_ref().unwrap()["money_per_month"], "2.50");

    let query = |actor: &str, action: &str| AuditQuery {
        actor: Some(actor.to_owned()),
        action: Some(action.to_owned()),
        ..AuditQuery::default()
    };
    for (actor, action, rows) in [
        ("OWN", "user", 1),
        ("", "plan.limits", 1),
        ("own%", "", 0),
        ("", "use", 0),
        ("test", "staff", 1),
    ] {
        let found = app.audit().list(&owner, query(actor, action)).await.unwrap();
        assert_eq!(found.rows.len(), rows, "{actor:?} {action:?}");
    }
}

#[tokio::test]
async fn the_pages_of_the_trail_show_each_row_once() {
    let app = App::new().await;
    let owner = app.owner().await;
    for n in 0..119 {
        app.plans().create(&owner, plan(&format!("plan {n}"))).await.unwrap();
    }
    let (mut seen, mut query) = (Vec::new(), AuditQuery::default());
    loop {
        let page = app.audit().list(&owner, query.clone()).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.id));
        // Something happens between two pages.
        app.plans()
            .create(&owner, plan(&format!("late {}", seen.len())))
            .await
            .unwrap();
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (1..=120).rev().collect::<Vec<i64>>());
}

/// A deck with a trail of twelve rows.
async fn trail() -> (App, Actor) {
    let app = App::new().await;
    let owner = app.owner().await;
    for n in 0..11 {
        app.plans().create(&owner, plan(&format!("plan {n}"))).await.unwrap();
    }
    assert_eq!(app.audit().verify().await.unwrap(), Verified::Whole { rows: 12 });
    (app, owner)
}

async fn broken_at(app: &App) -> Option<i64> {
    match app.audit().verify().await.unwrap() {
        Verified::Whole { .. } => None,
        Verified::Broken { id, .. } => Some(id),
    }
}

#[tokio::test]
async fn editing_any_column_of_any_row_is_found() {
    let (app, _) = trail().await;
    let edits = [
        ("at", "at + interval '1 microsecond'"),
        (
            "staff_id",
            "CASE WHEN staff_id IS NULL THEN (SELECT id FROM staff LIMIT 1) END",
        ),
        ("actor", "actor || '.'"),
        ("action", "'plan.limits'"),
        ("target_kind", "'user'"),
        ("target_id", "gen_random_uuid()::text"),
        ("target_name", "upper(target_name)"),
        ("before", "'{\"name\": 1}'"),
        ("after", "after || '{\"x\": null}'"),
        ("after", "NULL"),
        ("ip", "coalesce(ip, '') || '9'"),
        ("request_id", "coalesce(request_id, '') || '9'"),
        ("hash", "set_byte(hash, 31, 255 - get_byte(hash, 31))"),
        ("id", "id + 1000"),
    ];
    let columns: Vec<String> = app
        .test
        .column("SELECT DISTINCT column_name::text FROM information_schema.columns WHERE table_name = 'audit' AND column_name <> 'key_id'")
        .await;
    assert!(
        columns
            .iter()
            .all(|column| edits.iter().any(|(edited, _)| edited == column)),
        "{columns:?}"
    );
    app.test.run("CREATE TABLE kept AS SELECT * FROM audit").await;
    for id in [1, 6, 12] {
        for (column, value) in edits {
            assert_eq!(
                app.test
                    .run(&format!("UPDATE audit SET {column} = {value} WHERE id = {id}"))
                    .await,
                1
            );
            assert_eq!(broken_at(&app).await, Some(id), "{column} of row {id}");
            app.test
                .run("DELETE FROM audit; INSERT INTO audit SELECT * FROM kept")
                .await;
        }
    }
    assert_eq!(broken_at(&app).await, None);
}

#[tokio::test]
async fn rows_that_are_gone_or_change_places_are_found() {
    let (app, _) = trail().await;
    app.test.run("CREATE TABLE kept AS SELECT * FROM audit").await;
    let swap = "UPDATE audit SET id = -id WHERE id IN (4, 9); UPDATE audit SET id = 13 + id WHERE id < 0";
    for (what, sql, id) in [
        ("the first", "DELETE FROM audit WHERE id = 1", 1),
        ("one in the middle", "DELETE FROM audit WHERE id = 7", 7),
        ("the last", "DELETE FROM audit WHERE id = 12", 12),
        ("the last three", "DELETE FROM audit WHERE id > 9", 10),
        ("all", "DELETE FROM audit", 1),
        ("two swapped", swap, 4),
        (
            "a copy at the end",
            "INSERT INTO audit SELECT 13, at, staff_id, actor, action, target_kind, target_id, target_name, before, after, ip, request_id, key_id, hash FROM audit WHERE id = 12",
            13,
        ),
    ] {
        app.test.run(sql).await;
        assert_eq!(broken_at(&app).await, Some(id), "{what}");
        app.test
            .run("DELETE FROM audit; INSERT INTO audit SELECT * FROM kept")
            .await;
    }
    assert_eq!(broken_at(&app).await, None);
}

#[tokio::test]
async fn a_moved_end_of_the_chain_is_found() {
    let (app, _) = trail().await;
    app.test
        .run("UPDATE audit_head SET hash = set_byte(hash, 0, 255 - get_byte(hash, 0))")
        .await;
    assert_eq!(broken_at(&app).await, Some(12));
    app.test
        .run("UPDATE audit_head SET id = 11, hash = (SELECT hash FROM audit WHERE id = 11)")
        .await;
    assert!(
        broken_at(&app).await.is_some(),
        "the recorded end lies before the last row"
    );
}

#[tokio::test]
async fn rows_hashed_with_an_unknown_key_are_told_and_with_an_old_one_verified() {
    let (app, _) = trail().await;
    let new = KeyRing::generate();
    let rotated = format!(
        "{},{}",
        secrecy::ExposeSecret::expose_secret(&new),
        secrecy::ExposeSecret::expose_secret(&app.secret)
    );
    let after = app.replica(&rotated.into());
    let actor = Actor::system("operator");
    after
        .plans()
        .create(&actor, plan("made with the new key"))
        .await
        .unwrap();
    assert_eq!(after.audit().verify().await.unwrap(), Verified::Whole { rows: 13 });
    // Who lost the old key, and who has not got the new one.
    let lost = app.replica(&new).audit().verify().await.unwrap();
    assert!(
        matches!(lost, Verified::Broken { id: 1, why } if why.contains("BOTDECK_SECRET_KEY")),
        "{lost:?}"
    );
    let behind = app.audit().verify().await.unwrap();
    assert!(
        matches!(behind, Verified::Broken { id: 13, why } if why.contains("BOTDECK_SECRET_KEY")),
        "{behind:?}"
    );
    // Naming another known key does not help a forger.
    app.test
        .run("UPDATE audit SET key_id = (SELECT key_id FROM audit WHERE id = 13) WHERE id = 5")
        .await;
    let forged = after.audit().verify().await.unwrap();
    assert!(matches!(forged, Verified::Broken { id: 5, .. }), "{forged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_writers_at_once_keep_one_chain_which_is_whole_at_every_moment() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (plans, audit) = (app.plans(), app.audit());
    let (owner, plans) = (&owner, &plans);
    let write = join_all((0..20).map(|writer| async move {
        for n in 0..10 {
            plans.create(owner, plan(&format!("{writer}/{n}"))).await.unwrap();
        }
    }));
    let (done, mut finished) = tokio::sync::oneshot::channel();
    let writing = async {
        write.await;
        done.send(()).unwrap();
    };
    let watching = async {
        let mut walks = 0;
        while finished.try_recv().is_err() {
            let seen = audit.verify().await.unwrap();
            assert!(
                matches!(seen, Verified::Whole { .. }),
                "a false alarm while others write: {seen:?}"
            );
            walks += 1;
        }
        walks
    };
    let ((), walks) = tokio::join!(writing, watching);
    assert!(walks > 1, "nobody looked while it was written");
    assert_eq!(app.audit().verify().await.unwrap(), Verified::Whole { rows: 201 });
    assert_eq!(
        app.test.column::<i64>("SELECT id FROM audit ORDER BY id").await,
        (1..=201).collect::<Vec<i64>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_do_the_same_at_once_one_does_it() {
    let app = App::new().await;
    let owner = app.owner().await;
    let user = app.user(7).await;
    let (users, plans, bots) = (app.users(), app.plans(), app.bots());
    let won = |results: Vec<Result<(), Error>>| {
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Ok(()) | Err(Error::Conflict(_)))),
            "{results:?}"
        );
        results.iter().filter(|result| result.is_ok()).count()
    };
    assert_eq!(
        won(join_all((0..8).map(|_| users.block(&owner, user.user, reason("spam")))).await),
        1,
        "block"
    );
    assert_eq!(
        won(join_all((0..8).map(|_| users.set_plan(&owner, user.user, PLUS))).await),
        1,
        "plan"
    );
    let create = join_all((0..8).map(|_| async { plans.create(&owner, plan("gold")).await.map(|_| ()) }));
    assert_eq!(won(create.await), 1, "create");
    let same = || vec![(LimitKind::MessagesPerDay, Some(3))];
    join_all((0..8).map(|_| plans.set_limits(&owner, FREE, same()))).await;
    assert_eq!(app.test.count("audit WHERE action = 'plan.limits'").await, 1);
    for enabled in [false, true].repeat(5) {
        let switched = join_all((0..8).map(|_| bots.set_enabled(&owner, app.bot, enabled)));
        assert_eq!(won(switched.await), 1, "start or stop");
    }
}
