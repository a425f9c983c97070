//! Reads `spec/`.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The text of a file below `spec/`.
pub(crate) fn text(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../spec").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) trait Named {
    fn name(&self) -> &str;
}

/// The cases of `spec/vectors/<file>.json`: at least `at_least`, each with a name of its own.
pub(crate) fn cases<T: DeserializeOwned + Named>(file: &str, at_least: usize) -> Vec<T> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File<T> {
        description: String,
        #[serde(default)]
        header: Option<String>,
        cases: Vec<T>,
    }
    let read: File<T> = serde_json::from_str(&text(&format!("vectors/{file}.json")))
        .unwrap_or_else(|e| panic!("{file}: {e}"));
    assert!(!read.description.is_empty());
    if let Some(header) = read.header {
        assert_eq!(header.replace('-', "_"), file);
    }
    let names: HashSet<&str> = read.cases.iter().map(Named::name).collect();
    assert_eq!(names.len(), read.cases.len(), "{file}: a name is used twice");
    assert!(read.cases.len() >= at_least, "{file}: only {} cases", read.cases.len());
    read.cases
}

/// The bytes of lower-case hex.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(pair).collect()
}
