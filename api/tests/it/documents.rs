//! Documents that must say what the code does.

use serde_json::Value;
use shared::config::Vars;

use api::config::Config;
use api::error::Code;

#[test]
fn the_committed_openapi_document_is_current() {
    let committed = include_str!("../../openapi.json");
    assert!(
        committed == api::openapi::text(),
        "run: cargo run -p balas-api -- openapi > api/openapi.json"
    );
}

#[test]
fn what_the_document_refers_to_is_in_it() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(api::openapi::text()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_document_names_only_codes_that_exist_and_refuses_unknown_fields() {
    let document: Value = serde_json::from_str(api::openapi::text()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{method} {path}"
            );
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_problem = response["content"]
                    .get("application/problem+json")
                    .is_some();
                assert!(
                    is_problem || status.as_str() < "400" || path.starts_with("/health"),
                    "{method} {path} {status}"
                );
                let lines = response["description"]
                    .as_str()
                    .unwrap()
                    .split("\n\n")
                    .filter(|_| is_problem);
                for line in lines {
                    let name = line.split('`').nth(1).unwrap();
                    let code = Code::from_name(name)
                        .unwrap_or_else(|| panic!("{method} {path}: no code {name}"));
                    assert_eq!(code.status().as_str(), status, "{method} {path}: {name}");
                }
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            if let Some(name) = body.as_str().and_then(|path| path.rsplit('/').next()) {
                let schema = &document["components"]["schemas"][name];
                assert_eq!(
                    schema["additionalProperties"], false,
                    "{name} takes unknown fields"
                );
            }
        }
    }
}

#[test]
fn names_in_the_document_are_those_of_the_answers() {
    let document: Value = serde_json::from_str(api::openapi::text()).unwrap();
    let mut enums = 0;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for variant in schema["enum"].as_array().into_iter().flatten() {
            enums += 1;
            let text = variant.as_str().unwrap();
            let plain = text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
            assert!(plain, "{name} has {text}");
        }
    }
    assert!(enums > 50);
}

#[test]
fn every_variable_is_in_the_example_and_every_example_is_a_variable() {
    let mut vars = Vars::from_map::<String, String>([]);
    Config::from_vars(&mut vars);
    worker::config::WorkerConfig::from_vars(&mut vars);
    let example = include_str!("../../../.env.example");
    let mut shown: Vec<&str> = example
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .filter(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    shown.sort_unstable();
    let mut declared: Vec<&str> = vars.names().collect();
    declared.sort_unstable();
    declared.dedup();
    assert_eq!(shown, declared);
}
