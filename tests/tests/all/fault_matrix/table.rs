//! The document.

use std::fmt;
use std::path::Path;

use super::cells::{CALLS, Call, Cell, FAULTS, Span};
use super::deaths::DEATHS;
use super::run::Report;
use super::words::{Heard, Word};

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = FAULTS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |fault| fault.0);
        let span = if self.span == Span::Once { "once" } else { "until the sweep" };
        write!(f, "{} x {fault}, {span}", self.call.name())
    }
}

/// A cell as it stands in the document.
fn shown(first: Heard, word: Word) -> String {
    let star = if matches!(first, Heard::Pending | Heard::Unavailable) { "*" } else { "" };
    format!("{word}{star}")
}

pub(super) fn of_faults(reports: &[(Cell, Report)]) -> String {
    let mut text = String::new();
    for (span, title) in [(Span::Once, "Once"), (Span::UntilTheSweep, "Until the sweep")] {
        let mut rows = vec![vec!["".to_owned()]];
        rows[0].extend(CALLS.map(|call| call.name().to_owned()));
        for (name, kind) in FAULTS {
            let cell = |call: Call| {
                let cell = Cell { call, kind, span };
                let (_, report) = reports.iter().find(|(other, _)| *other == cell).unwrap();
                shown(report.first, report.word)
            };
            rows.push([name.to_owned()].into_iter().chain(CALLS.map(cell)).collect());
        }
        text += &format!("### {title}\n\n{}\n", markdown(&rows));
    }
    text
}

pub(super) fn of_deaths(
    restarted: &[(Word, Vec<String>)],
    taken_over: &[(Word, Vec<String>)],
) -> String {
    let head = ["killed", "on disk, started again", "in Redis, taken over"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for ((death, (here, _)), (there, _)) in DEATHS.iter().zip(restarted).zip(taken_over) {
        rows.push(vec![death.name.to_owned(), here.to_string(), there.to_string()]);
    }
    markdown(&rows)
}

/// A table whose first row is its head.
fn markdown(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(rows[0].len()));
    let (head, body) = rows.split_first().unwrap();
    let body: String = body.iter().map(|row| line(row)).collect();
    format!("{}{rule}{body}", line(head))
}

/// Compares the part of the document between two marks, or writes it.
pub(super) fn keep(part: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fault-matrix.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->\n"));
    let (before, rest) = document.split_once(&begin).expect("the document has its marks");
    let (kept, after) = rest.split_once(&end).expect("the document has its marks");
    if std::env::var("FAREBOX_WRITE").is_ok_and(|write| write == "1") {
        std::fs::write(&path, format!("{before}{begin}{text}{end}{after}")).unwrap();
        return;
    }
    println!("{text}");
    assert!(
        kept == text,
        "docs/fault-matrix.md says something else: write it with FAREBOX_WRITE=1"
    );
}
