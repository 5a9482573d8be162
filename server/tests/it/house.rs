//! What the README says of the house: which crate may know which, and one table of lints for all.

use std::{collections::BTreeMap, path::Path};

use toml::{Table, Value};

fn manifest(path: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every crate of the workspace by its name.
fn crates() -> BTreeMap<String, Table> {
    let root = manifest("Cargo.toml");
    let members = root["workspace"]["members"].as_array().unwrap();
    let crates = members.iter().map(|member| {
        let manifest = manifest(&format!("{}/Cargo.toml", member.as_str().unwrap()));
        (manifest["package"]["name"].as_str().unwrap().to_owned(), manifest)
    });
    crates.collect()
}

#[test]
fn dependencies_point_one_way() {
    let crates = crates();
    // What each crate may know of the others, apart from its tests.
    let allowed: BTreeMap<&str, &[&str]> = [
        ("domain", [].as_slice()),
        ("repositories", &["domain"]),
        ("gateway", &["domain"]),
        ("services", &["domain", "repositories", "gateway"]),
        ("app", &["domain", "services"]),
        ("bot", &["domain", "services", "gateway"]),
        ("jobs", &["domain", "services", "bot"]),
        ("frontend", &["app"]),
        (
            "server",
            &["domain", "repositories", "services", "gateway", "app", "bot", "jobs"],
        ),
    ]
    .into();
    for (name, manifest) in &crates {
        if ["test-support", "bench"].contains(&name.as_str()) {
            continue;
        }
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} has no place in the house"));
        for section in ["dependencies", "build-dependencies"] {
            let Some(Value::Table(needs)) = manifest.get(section) else {
                continue;
            };
            for need in needs.keys().filter(|need| crates.contains_key(*need)) {
                assert!(may.contains(&need.as_str()), "{name} may not know {need}");
            }
        }
        // Only repositories speak to the database.
        let speaks_sql = manifest["dependencies"].as_table().unwrap().contains_key("sqlx");
        assert_eq!(speaks_sql, name == "repositories", "{name} and sqlx");
    }
    // In the browser there is nothing of the server.
    let app = crates["app"]["dependencies"].as_table().unwrap();
    assert_eq!(app["services"].get("optional"), Some(&Value::Boolean(true)));
}

#[test]
fn all_crates_have_the_lints_of_the_one_table() {
    for (name, manifest) in crates() {
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints, Some(&Value::Boolean(true)), "{name}");
    }
}

#[test]
fn cargo_asks_no_database_because_one_is_set() {
    let config = manifest(".cargo/config.toml");
    assert_eq!(config["env"]["SQLX_OFFLINE"], Value::String("true".to_owned()));
}
