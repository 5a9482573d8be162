use crate::database::TestDatabase;
use repositories::Database;

#[tokio::test]
async fn two_replicas_migrate_an_empty_database_at_the_same_time() {
    let test = TestDatabase::empty().await;
    let other = Database::connect(test.url(), 2).await.unwrap();
    let (one, two) = tokio::join!(test.migrate(), other.migrate());
    one.unwrap();
    two.unwrap();
    assert_eq!(test.count("plans").await, 3);
    assert_eq!(test.count("_sqlx_migrations WHERE success").await, migrations());
    other.close().await;
}

#[tokio::test]
async fn a_second_start_changes_nothing() {
    let test = TestDatabase::new().await;
    let before = test.column::<String>(SCHEMA).await;
    assert!(before.len() > 50, "{before:?}");
    // Staff has taken the limits of a plan away; a start must not bring them back.
    test.run("DELETE FROM limits").await;
    test.migrate().await.unwrap();
    assert_eq!(test.column::<String>(SCHEMA).await, before);
    assert_eq!(test.count("limits").await, 0);
}

#[tokio::test]
async fn a_replica_starts_beside_the_next_release_which_has_migrated_already() {
    let test = TestDatabase::new().await;
    test.run(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99991231000000, 'of the next release', true, '\\x00', 0)",
    )
    .await;
    test.migrate().await.unwrap();
}

/// Its migration, begun anew, would take it for built.
#[tokio::test]
async fn an_index_whose_building_was_interrupted_is_dropped() {
    let test = TestDatabase::new().await;
    let duplicates = sqlx::query("CREATE UNIQUE INDEX CONCURRENTLY half_built ON plans ((1))")
        .execute(test.pool())
        .await;
    assert!(duplicates.is_err(), "{duplicates:?}");
    let half_built = "pg_index WHERE indexrelid = to_regclass('half_built') AND NOT indisvalid";
    assert_eq!(test.count(half_built).await, 1);
    test.migrate().await.unwrap();
    assert_eq!(test.count("pg_class WHERE relname = 'half_built'").await, 0);
}

#[tokio::test]
async fn messages_have_partitions_for_this_month_and_three_more_whatever_the_time_zone() {
    let test = TestDatabase::new().await;
    let expected: Vec<String> = test
        .column(
            "SELECT 'messages_' || to_char((now() AT TIME ZONE 'UTC')::date - extract(day FROM now() AT TIME ZONE 'UTC')::int + 1
                    + n * interval '1 month', 'YYYY_MM') FROM generate_series(0, 3) AS n",
        )
        .await;
    let bounds = test.column::<String>(BOUNDS).await;
    assert_eq!(test.column::<String>(PARTITIONS).await, expected);
    test.ensure_partitions().await.unwrap();
    assert_eq!(test.column::<String>(BOUNDS).await, bounds);

    // The months are those of UTC even on a server that lives elsewhere: made anew there, they are the same.
    let name: String = test.one("SELECT current_database()::text").await;
    for table in &expected {
        test.run(&format!("DROP TABLE {table}")).await;
    }
    test.run(&format!("ALTER DATABASE {name} SET timezone = 'Pacific/Auckland'"))
        .await;
    let elsewhere = Database::connect(test.url(), 2).await.unwrap();
    elsewhere.ensure_partitions().await.unwrap();
    elsewhere.close().await;
    assert_eq!(test.column::<String>(BOUNDS).await, bounds);
}

#[tokio::test]
async fn many_replicas_make_the_partitions_at_once() {
    let test = TestDatabase::new().await;
    for table in test.column::<String>(PARTITIONS).await {
        test.run(&format!("DROP TABLE {table}")).await;
    }
    let all = futures::future::join_all((0..8).map(|_| test.ensure_partitions())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(test.column::<String>(PARTITIONS).await.len(), 4);
}

const PARTITIONS: &str =
    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'messages'::regclass ORDER BY 1";

/// As UTC, whatever the session's zone.
const BOUNDS: &str = "SELECT set_config('timezone', 'UTC', false) || c.relname || pg_get_expr(c.relpartbound, c.oid)
     FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'messages'::regclass ORDER BY 1";

const SCHEMA: &str = "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
     WHERE table_schema = 'public' ORDER BY 1";

fn migrations() -> i64 {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations")).unwrap();
    let files = folder.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|kind| kind == "sql")
    });
    i64::try_from(files.count()).unwrap()
}
