//! `spec/policy.md` and `spec/policy.schema.json` against the reader.

use boon::{Compiler, SchemaIndex, Schemas};
use farebox_policy::Policy;
use proptest::prelude::*;
use serde_json::Value;

const SPEC: &str = include_str!("../../../spec/policy.md");
const SCHEMA: &str = include_str!("../../../spec/policy.schema.json");

struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn new() -> Schema {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("urn:policy", serde_json::from_str(SCHEMA).unwrap()).unwrap();
        let index = compiler.compile("urn:policy", &mut schemas).unwrap();
        Schema { schemas, index }
    }

    fn accepts(&self, policy: &Value) -> bool {
        self.schemas.validate(policy, self.index).is_ok()
    }
}

fn toml_of(text: &str) -> Value {
    toml::from_str(text).unwrap()
}

fn recipes() -> Vec<&'static str> {
    let blocks = SPEC.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn every_recipe_is_read_and_is_of_the_schema() {
    let schema = Schema::new();
    assert_eq!(recipes().len(), 10);
    for recipe in recipes() {
        let policy = Policy::from_toml(recipe).unwrap();
        assert!(schema.accepts(&toml_of(recipe)), "{recipe}");
        let json = serde_json::to_string(&policy).unwrap();
        assert!(schema.accepts(&serde_json::from_str(&json).unwrap()), "{json}");
        assert_eq!(Policy::from_json(&json).unwrap(), policy, "{json}");
    }
}

#[test]
fn recipes_have_no_warnings_but_those_they_ask_for() {
    for recipe in recipes() {
        let warnings = Policy::from_toml(recipe).unwrap().warnings();
        let expected = match recipe {
            recipe if recipe.contains("\"any\"") => 1,
            recipe if !recipe.contains("per_top_up") => 2,
            _ => 0,
        };
        assert_eq!(warnings.len(), expected, "{recipe}{warnings:?}");
    }
}

#[test]
fn every_field_of_the_schema_is_in_the_table_and_is_read() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let table = SPEC.split("## Windows").next().unwrap();
    for field in schema["properties"].as_object().unwrap().keys() {
        assert!(table.contains(&format!("`{field}`")), "{field}");
        let error = Policy::from_toml(&format!("{field} = 1970-01-01")).unwrap_err();
        assert!(!error.to_string().contains("unknown field"), "{error}");
    }
}

/// What is wrong, and what the error says about it.
const WRONG: [(&str, &str); 24] = [
    ("per_dya = \"5.00 usd\"", "line 1: unknown field `per_dya`"),
    ("per_dya = \"5.00 usd\"", "did you mean `per_day`?"),
    ("\nPer_Request = \"5.00 usd\"", "line 2: unknown field `Per_Request`"),
    ("alow = [\"example.com\"]", "did you mean `allow`?"),
    ("per_day = 5", "an amount such as \"5.00 usd\""),
    ("per_day = 5.0", "an amount such as \"5.00 usd\""),
    ("per_day = \"5.00\"", "an amount names its currency"),
    ("per_day = \"5.00 USD\"", "unknown currency"),
    ("per_day = \"5,00 usd\"", "an amount is digits"),
    ("per_day = \"-5 usd\"", "an amount is digits"),
    ("per_day = \"1e3 usd\"", "an amount is digits"),
    ("per_day = \"0.0000001 usd\"", "at most six decimals"),
    ("per_day = \"5  usd\"", "unknown currency"),
    ("allow = \"all\"", "a list of hosts, or \"any\""),
    ("allow = [\"https://example.com/path\"]", "is not a host"),
    ("allow = [\"*.example.com\"]", "is not a host"),
    ("allow = [\"user@example.com\"]", "is not a host"),
    ("allow = [\"b\u{fc}cher.example\"]", "is not a host"),
    ("block = [\"\"]", "is not a host"),
    ("rolling = [{ window = \"1w\", limit = \"1 usd\" }]", "a rolling window is digits"),
    ("rolling = [{ window = \"1h\" }]", "missing field `limit`"),
    ("rolling = [{ windw = \"1h\", limit = \"1 usd\" }]", "did you mean `window`?"),
    ("payments_per_minute = -1", "expected u32"),
    ("[[origin]]\nper_day = \"1 usd\"", "missing field `host`"),
];

#[test]
fn what_is_wrong_is_refused_by_the_reader_and_the_schema() {
    let schema = Schema::new();
    for (text, says) in WRONG {
        let error = Policy::from_toml(text).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.line().is_some(), "{text}: {error}");
        let value = toml_of(text);
        assert!(Policy::from_json(&value.to_string()).is_err(), "{text}");
        assert!(!schema.accepts(&value), "{text}");
    }
}

#[test]
fn the_reader_refuses_what_a_schema_cannot_say() {
    for (text, says) in [
        ("per_day = \"5.00 xyz\"", "unknown currency"),
        ("per_day = \"99999999999 usd\"", "out of range"),
        ("allow = [\"example.com:99999\"]", "is not a host"),
        ("allow = [\"1.2.3\"]", "is not a host"),
        ("rolling = [{ window = \"367d\", limit = \"1 usd\" }]", "a rolling window is digits"),
        ("per_day = \"1 usd\"\nper_day = \"2 usd\"", "line 2: duplicate key"),
    ] {
        let error = Policy::from_toml(text).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    let twice = r#"{"per_day": "1 usd", "per_day": "2 usd"}"#;
    let error = Policy::from_json(twice).unwrap_err();
    assert_eq!(error.to_string(), "line 1: duplicate field `per_day`");
    assert!(Policy::from_toml(&"#".repeat(256 * 1024 + 1)).is_err());
}

#[test]
fn a_file_may_be_empty_and_then_nothing_is_allowed() {
    assert_eq!(Policy::from_toml("").unwrap(), Policy::new());
    assert_eq!(Policy::from_json("{}").unwrap(), Policy::new());
    assert!(Policy::from_json("").is_err());
    assert!(Policy::from_json("[]").is_err());
}

proptest! {
    #[test]
    fn whatever_is_read_is_a_policy_or_an_error_with_its_line(
        lines in prop::collection::vec("([a-z_]{1,12}|\\PC{0,9}) ?= ?(\"\\PC{0,9}\"|\\[\\]|[0-9.]{1,9})", 0..6),
        at in 0..200_usize,
        with in "\\PC{0,4}",
    ) {
        let recipe = recipes()[at % 10];
        let mut changed: Vec<char> = recipe.chars().collect();
        changed.splice(at % changed.len()..at % changed.len(), with.chars());
        for text in [lines.join("\n"), changed.into_iter().collect()] {
            match Policy::from_toml(&text) {
                Ok(policy) => {
                    let json = serde_json::to_string(&policy).unwrap();
                    prop_assert_eq!(Policy::from_json(&json).unwrap(), policy);
                }
                Err(error) => {
                    let lines = text.split('\n').count();
                    prop_assert!(error.line().is_some_and(|line| (1..=lines).contains(&line)), "{text}: {error}");
                }
            }
        }
    }
}
