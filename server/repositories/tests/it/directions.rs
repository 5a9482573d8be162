//! Where the database has pgvector, it compares; where it has it and we may not use it, everything else works all the same.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ComparedBy, Likeness, UserId};
use rand::{Rng, SeedableRng, rngs::StdRng};
use repositories::{
    Database, PgConnection, directions,
    similar::{self, NewAnswer},
};
use sqlx::{Connection, Row};

use crate::{
    database::TestDatabase,
    fixtures::{meet, similar_answer},
};

const SPACE: [u8; 32] = [7; 32];

async fn answer(db: &mut PgConnection, user: UserId, space: &[u8; 32], vector: &[f32], at: DateTime<Utc>) {
    let answer = NewAnswer {
        question: &format!("{vector:?} of {at}"),
        compared_by: ComparedBy::Database,
        ..similar_answer(user, space, vector, at)
    };
    similar::insert(db, &answer).await.unwrap();
}

#[tokio::test]
async fn two_replicas_that_migrate_at_once_both_let_the_database_compare() {
    let test = TestDatabase::empty_with_pgvector().await;
    assert_eq!(test.compared_by(), ComparedBy::Process, "there is no schema yet");
    let other = Database::connect(test.url(), 2).await.unwrap();
    let (one, two) = tokio::join!(test.migrate(), other.migrate());
    assert_eq!((one.unwrap(), two.unwrap()), (None, None));
    let third = Database::connect(test.url(), 2).await.unwrap();
    for db in [&*test, &other, &third] {
        assert_eq!(db.compared_by(), ComparedBy::Database);
    }
    other.close().await;
    third.close().await;
}

#[tokio::test]
async fn a_server_without_pgvector_is_left_as_it_is_and_nothing_is_said_of_it() {
    let test = TestDatabase::without_vectors().await;
    assert_eq!(test.compared_by(), ComparedBy::Process);
    assert_eq!(test.migrate().await.unwrap(), None);
    // The machine's own Postgres may have it.
    let has_it = test.count("pg_available_extensions WHERE name = 'vector'").await;
    assert_eq!(
        test.count("pg_class WHERE relname = 'similar_directions'").await,
        has_it
    );
    assert_eq!(test.compared_by() == ComparedBy::Database, has_it == 1);
}

#[tokio::test]
async fn who_may_not_make_the_extension_is_served_without_until_somebody_else_has_made_it() {
    let test = TestDatabase::empty_with_pgvector().await;
    let name: String = test.one("SELECT current_database()::text").await;
    let role = format!("owner_of_{name}");
    test.run(&format!(
        "CREATE ROLE {role} LOGIN; ALTER DATABASE {name} OWNER TO {role}; ALTER SCHEMA public OWNER TO {role}"
    ))
    .await;
    let (_, place) = test.url().split_once('@').unwrap();
    let owner = Database::connect(&format!("postgres://{role}@{place}"), 2)
        .await
        .unwrap();
    let unused = owner.migrate().await.unwrap();
    assert_eq!(
        unused.as_deref(),
        Some("permission denied to create extension \"vector\"")
    );
    assert_eq!(owner.compared_by(), ComparedBy::Process);

    test.run("CREATE EXTENSION vector").await;
    assert_eq!(owner.migrate().await.unwrap(), None);
    assert_eq!(owner.compared_by(), ComparedBy::Database);
    owner.close().await;
    test.run(&format!(
        "REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"
    ))
    .await;
}

/// A dump that was restored where there was no pgvector lacks the table; where somebody dropped the extension, it lacks its vectors.
#[tokio::test]
async fn a_database_that_has_lost_its_vectors_works_without_and_has_them_anew_after_a_start() {
    let test = TestDatabase::with_pgvector().await;
    let now = test.now().await.unwrap();
    let mut db = test.acquire().await.unwrap();
    let user = meet(&mut db, 7, now).await.user;
    answer(&mut db, user, &SPACE, &[1.0, 0.0], now).await;
    for lost in [
        "DROP TABLE similar_directions; DROP EXTENSION vector",
        "DROP EXTENSION vector CASCADE",
    ] {
        test.run(lost).await;
        let restored = Database::connect(test.url(), 2).await.unwrap();
        assert_eq!(restored.compared_by(), ComparedBy::Process, "{lost}");
        let held = similar::load(&mut db, &SPACE, None, now, 10).await.unwrap();
        assert!(!held.is_empty() && *held[0].vector == [1.0, 0.0], "{held:?}");
        restored.migrate().await.unwrap();
        assert_eq!(restored.compared_by(), ComparedBy::Database, "{lost}");
        let mut anew = restored.acquire().await.unwrap();
        // What was there before is not found by it, and what comes is.
        let nearest = directions::nearest(&mut anew, &SPACE, &[1.0, 0.0], now).await.unwrap();
        assert_eq!(nearest, None);
        answer(&mut anew, user, &SPACE, &[1.0, 0.0], now).await;
        let nearest = directions::nearest(&mut anew, &SPACE, &[1.0, 0.0], now).await.unwrap();
        assert!(nearest.is_some(), "{lost}");
        drop(anew);
        restored.close().await;
    }
}

#[tokio::test]
async fn the_nearest_that_holds_is_found_in_its_space_the_newest_of_several() {
    let test = TestDatabase::with_pgvector().await;
    let now = test.now().await.unwrap();
    let mut db = test.acquire().await.unwrap();
    let user = meet(&mut db, 7, now).await.user;
    let minutes = |minutes| now + TimeDelta::minutes(minutes);
    for (space, vector, at) in [
        (SPACE, &[0.6, 0.8][..], minutes(0)),
        (SPACE, &[0.8, 0.6], minutes(10)),
        (SPACE, &[0.8, 0.6], minutes(20)),
        (SPACE, &[0.8, 0.6], minutes(15)),
        (SPACE, &[1.0, 0.0, 0.0], minutes(20)),
        ([8; 32], &[1.0, 0.0], minutes(20)),
    ] {
        answer(&mut db, user, &space, vector, at).await;
    }
    // More dimensions than pgvector takes: the answer is written, and found by nobody.
    answer(&mut db, user, &SPACE, &vec![0.001; 16_001], minutes(20)).await;
    let nearest = async |db: &mut PgConnection, vector: &[f32], at: i64| {
        let (id, likeness) = directions::nearest(db, &SPACE, vector, minutes(at)).await.unwrap()?;
        let asked = similar::get(db, id, minutes(at)).await.unwrap().unwrap();
        Some((asked.question, likeness.thousandths()))
    };
    let newest = format!("[0.8, 0.6] of {}", minutes(20));
    assert_eq!(nearest(&mut db, &[1.0, 0.0], 30).await, Some((newest, 800)));
    let oldest = format!("[0.6, 0.8] of {}", minutes(0));
    assert_eq!(nearest(&mut db, &[0.0, 1.0], 30).await, Some((oldest, 800)));
    assert!(
        nearest(&mut db, &[0.0, 1.0], 61)
            .await
            .is_some_and(|(_, likeness)| likeness == 600)
    );
    assert_eq!(nearest(&mut db, &[1.0, 0.0], 80).await, None);
    assert_eq!(nearest(&mut db, &[1.0], 30).await, None);
    assert_eq!(nearest(&mut db, &vec![0.001; 16_001], 30).await, None);
    // With the answers their vectors go.
    similar::prune(&mut db, 100, 100, minutes(80)).await.unwrap();
    assert_eq!(test.count("similar_directions").await, 0);
}

#[tokio::test]
async fn likenesses_are_those_of_a_process_and_nothing_is_read_but_the_space() {
    let test = TestDatabase::with_pgvector().await;
    let now = test.now().await.unwrap();
    let mut db = test.acquire().await.unwrap();
    let user = meet(&mut db, 7, now).await.user;
    let mut rng = StdRng::seed_from_u64(7);
    let mut direction = || -> Vec<f32> {
        let numbers: Vec<f32> = (0..256).map(|_| rng.random_range(-0.3..1.0_f32)).collect();
        let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
        numbers.iter().map(|number| number / length).collect()
    };
    let vectors: Vec<Vec<f32>> = (0..40).map(|_| direction()).collect();
    for vector in &vectors {
        answer(&mut db, user, &SPACE, vector, now).await;
    }
    test.run(
        "INSERT INTO similar_answers (id, bot_id, space, user_id, question, vector, answer, provider, created_at, expires_at)
         SELECT md5(n::text)::uuid, bot_id, decode(repeat(lpad(to_hex(n % 100 + 100), 2, '0'), 32), 'hex'), user_id, 'q', vector, 'a', 'p',
                created_at, expires_at
         FROM generate_series(1, 5000) AS n, (SELECT * FROM similar_answers LIMIT 1) AS a;
         INSERT INTO similar_directions
         SELECT a.id, a.space, 256, a.created_at, a.expires_at, d.direction
         FROM similar_answers a, (SELECT direction FROM similar_directions LIMIT 1) AS d WHERE a.question = 'q'",
    )
    .await;
    test.run("VACUUM ANALYZE similar_directions").await;
    // A new connection, since what is counted stays with one beyond the end of its transactions.
    let mut connection = PgConnection::connect(test.url()).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    for _ in 0..20 {
        let asked = direction();
        let (_, found) = directions::nearest(&mut tx, &SPACE, &asked, now)
            .await
            .unwrap()
            .unwrap();
        let cosine = |vector: &Vec<f32>| vector.iter().zip(&asked).map(|(one, other)| one * other).sum::<f32>();
        let nearest = vectors.iter().map(cosine).max_by(f32::total_cmp).unwrap();
        assert_eq!(found, Likeness::of_cosine(nearest), "{nearest}");
    }
    let read = sqlx::query(
        "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'similar_directions'",
    )
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    assert_eq!((read.get::<i64, _>(0), read.get::<i64, _>(1)), (0, 20 * 40));
}
