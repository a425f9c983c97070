//! Facts about the workspace itself.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    let run = |offline: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version", "1", "--locked"]).args(offline);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
    };
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        output = run(&[]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `1.90` and `1.90.0` are the same version.
fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// All that ends up in a program of ours: dependencies of dependencies, but none of tests.
fn shipped(metadata: &Value) -> HashSet<&str> {
    let is_normal = |kind: &Value| kind["kind"].is_null();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let needs: HashMap<&str, Vec<&str>> = nodes
        .iter()
        .map(|node| {
            let normal = list(&node["deps"]).iter();
            let normal = normal.filter(|dep| list(&dep["dep_kinds"]).iter().any(is_normal));
            (text(&node["id"]), normal.map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    let mut found = HashSet::new();
    let mut open: Vec<&str> = list(&metadata["workspace_members"]).iter().map(text).collect();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(&needs[id]);
        }
    }
    found
}

#[test]
fn the_rust_version_is_the_highest_that_a_dependency_needs() {
    let metadata = metadata();
    let shipped = shipped(&metadata);
    let members: HashSet<&str> = list(&metadata["workspace_members"]).iter().map(text).collect();
    let mut ours = HashSet::new();
    let mut highest = ([0; 3], "");
    for package in list(&metadata["packages"]) {
        let (id, name) = (text(&package["id"]), text(&package["name"]));
        let needs = package["rust_version"].as_str().map(version);
        if members.contains(id) {
            ours.insert(needs.unwrap_or_else(|| panic!("{name} has no rust-version")));
        } else if shipped.contains(id) {
            highest = highest.max((needs.unwrap_or_default(), name));
        }
    }
    let (needed, by) = highest;
    println!("{} packages shipped; {by} needs Rust {needed:?}", shipped.len());
    assert_eq!(ours, HashSet::from([needed]), "{by} needs {needed:?}");
}
