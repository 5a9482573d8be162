//! What the README says of the house: which crate may know which, and one table of lints for all.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

fn manifest(path: &str) -> Table {
    let path = root().join(path);
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

const README: &str = include_str!("../../../README.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folders of the map in the README, from the root.
fn map() -> BTreeSet<String> {
    let (_, house) = README.split_once("\n## The house\n").unwrap();
    let block = house.split("```").nth(1).unwrap();
    let mut above = "";
    let mut folders = BTreeSet::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let names = line.split_whitespace().take_while(|word| word.ends_with('/'));
        for name in names.map(|name| name.trim_end_matches('/')) {
            if line.starts_with(' ') {
                folders.insert(format!("{above}/{name}"));
            } else {
                above = name;
                folders.insert(name.to_owned());
            }
        }
    }
    folders
}

#[test]
fn the_map_shows_every_crate_and_every_folder_of_the_house() {
    let map = map();
    for folder in &map {
        assert!(
            root().join(folder).is_dir(),
            "the README shows {folder}/, which is not there"
        );
    }
    let members = manifest("Cargo.toml")["workspace"]["members"]
        .as_array()
        .unwrap()
        .clone();
    for member in &members {
        assert!(
            map.contains(member.as_str().unwrap()),
            "the README does not show {member}"
        );
    }
    for entry in std::fs::read_dir(root()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let is_house = entry.path().is_dir() && !name.starts_with('.') && !["docs", "target"].contains(&name.as_str());
        assert!(!is_house || map.contains(&name), "the README does not show {name}/");
    }
}

#[test]
fn what_the_readme_points_to_is_there() {
    let folders = [
        "app/",
        "server/",
        "bin/",
        "docs/",
        "migrations/",
        "end2end/",
        "LICENSE",
        "CHANGELOG.md",
    ];
    let inline = README.split('`').skip(1).step_by(2);
    let links = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let paths: Vec<&str> = inline
        .chain(links)
        .filter_map(|text| text.split_whitespace().next())
        .filter(|path| folders.iter().any(|folder| path.starts_with(folder)))
        .collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(
            root().join(path).exists(),
            "the README points to {path}, which is not there"
        );
    }
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
