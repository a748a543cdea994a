//! The committed schema and reference page are those that the code makes.

use std::path::Path;

/// `TALKLINE_BLESS=1` writes the files anew.
#[track_caller]
fn check(name: &str, fresh: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(name);
    #[expect(
        clippy::disallowed_methods,
        reason = "a test compares files of the repository"
    )]
    let committed = {
        if std::env::var_os("TALKLINE_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, fresh).unwrap();
        }
        std::fs::read_to_string(&path).unwrap_or_default()
    };
    assert!(
        committed == fresh,
        "docs/reference/{name} is stale: run `TALKLINE_BLESS=1 cargo test -p talkline-config`"
    );
}

#[test]
fn the_schema_is_fresh() {
    check("talkline.schema.json", &talkline_config::schema());
}

#[test]
fn the_reference_page_is_fresh() {
    check("configuration.md", &talkline_config::reference());
}

#[test]
fn every_key_is_described() {
    let page = talkline_config::reference();
    let sections: Vec<&str> = page.split("\n### ").skip(1).collect();
    assert!(sections.len() > 40);
    for section in sections {
        let meaning = section.split("\n\n").nth(1).unwrap_or_default();
        assert!(meaning.len() > 5 && !meaning.starts_with('-'), "{section}");
    }
}

/// Every property of the schema is a key that the reader knows, and the other way round: the
/// reader says so itself when it is given them all.
#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let schema: serde_json::Value = serde_json::from_str(&talkline_config::schema()).unwrap();
    let mut keys = Vec::new();
    collect(&schema, String::new(), &mut keys);
    let page = talkline_config::reference();
    let count = page.matches("\n### ").count();
    assert_eq!(keys.len(), count, "{keys:#?}");
    let text: String = keys.iter().map(|key| format!("{key} = false\n")).collect();
    let report = crate::support::toml(&text).expect_broken();
    let unknown: Vec<_> = report
        .problems()
        .iter()
        .filter(|problem| problem.code.starts_with("key.unknown"))
        .collect();
    assert!(unknown.is_empty(), "{report}");
}

fn collect(schema: &serde_json::Value, path: String, keys: &mut Vec<String>) {
    let join = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    if let Some(properties) = schema.get("properties").and_then(|value| value.as_object()) {
        properties
            .iter()
            .for_each(|(key, schema)| collect(schema, join(key), keys));
    } else if let Some(values) = schema
        .get("additionalProperties")
        .filter(|value| value.is_object())
    {
        collect(values, join("openai"), keys);
    } else {
        keys.push(path);
    }
}
