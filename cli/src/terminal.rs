//! How things look: colours on a terminal only, aligned tables, progress.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use farebox_protocol::{Currency, Micros};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Fault;

pub(crate) const HEADING: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const CAREFUL: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const PLAIN: Style = Style::new();

/// Prints `text`, without its colours unless a terminal shows them. A reader that has enough
/// (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Fault> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints `value` as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Fault> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// Progress on standard error, if that is a terminal. It is gone when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(doing: &'static str) -> Progress {
        let bar = ProgressBar::no_length(); // on standard error; silent unless it is a terminal
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len} books, {eta}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(doing);
        Progress(bar)
    }

    /// Of something whose length nobody knows: how long it has taken.
    pub(crate) fn waiting(doing: impl Into<Cow<'static, str>>) -> Progress {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(doing);
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress(bar)
    }

    pub(crate) fn show(&self, done: usize, of: usize) {
        let of = of.max(done).try_into().unwrap_or(u64::MAX);
        if self.0.length() != Some(of) {
            self.0.set_length(of);
        }
        self.0.set_position(done.try_into().unwrap_or(u64::MAX));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// `micros` in major units, exactly, with at least the currency's own decimals: `-0.0123`.
pub(crate) fn decimal(micros: i128, currency: Currency) -> String {
    let (whole, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let digits = format!("{fraction:06}");
    let shown = digits.trim_end_matches('0').len();
    let shown = shown.max(usize::try_from(currency.exponent()).unwrap_or(0));
    let sign = if micros < 0 { "-" } else { "" };
    match shown {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{}", &digits[..shown]),
    }
}

/// The same with the currency's code: `5.00 usd`.
pub(crate) fn money(micros: Micros, currency: Currency) -> String {
    format!("{} {currency}", decimal(micros.get().into(), currency))
}

/// Pads amounts on their right, so that their points stand below each other once their right ends
/// do.
pub(crate) fn align_points(amounts: &mut [String]) {
    let decimals = |amount: &str| amount.find('.').map_or(0, |point| amount.len() - point);
    let most = amounts.iter().map(|amount| decimals(amount)).max().unwrap_or(0);
    for amount in amounts {
        let missing = most - decimals(amount);
        amount.extend(std::iter::repeat_n(' ', missing));
    }
}

/// A cell of a table.
#[derive(Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    pub(crate) fn left(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), style: PLAIN, right: false }
    }

    pub(crate) fn right(text: impl Into<String>) -> Cell {
        Cell { right: true, ..Cell::left(text) }
    }

    pub(crate) fn style(self, style: Style) -> Cell {
        Cell { style, ..self }
    }
}

/// The rows with their columns aligned, each on a line of its own.
pub(crate) fn table(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        let mut behind = 0; // blanks that are written only if something follows them
        for (cell, width) in row.iter().zip(&widths) {
            let Cell { text, style, right } = cell;
            let shown = text.trim_end();
            let padding = width - text.chars().count();
            let trailing = text.chars().count() - shown.chars().count();
            let (before, after) =
                if *right { (padding, trailing) } else { (0, padding + trailing) };
            if shown.is_empty() {
                behind += width + 2;
                continue;
            }
            line.extend(std::iter::repeat_n(' ', behind + before));
            line.push_str(&format!("{style}{shown}{style:#}"));
            behind = after + 2;
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// `amount` as a bar; the `most` is `width` columns. What is not nothing is not invisible. `plain`:
/// for a reader that may know ASCII only.
pub(crate) fn bar(amount: i128, most: i128, width: usize, plain: bool) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let (full, parts) = if plain { ("#", &EIGHTHS[..1]) } else { ("█", &EIGHTHS[..]) };
    let (amount, most) = (amount.unsigned_abs().min(most.unsigned_abs()), most.unsigned_abs());
    let steps = u128::try_from(width.saturating_mul(parts.len())).unwrap_or(0);
    let share = amount.saturating_mul(steps).div_ceil(most.max(1));
    let share = usize::try_from(share).unwrap_or(0);
    format!("{}{}", full.repeat(share / parts.len()), parts[share % parts.len()])
}

/// The columns of the terminal that standard output is; `None` if it is none, or does not say.
pub(crate) fn width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// Asks on standard error; only an explicit yes is one.
pub(crate) async fn yes(question: &str) -> Result<bool, Fault> {
    anstream::eprint!("{question} [y/N] ");
    // A thread of its own, which nobody waits for if the question is interrupted.
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line).map(|_| line);
        drop(answer.send(read));
    });
    let answer = answered.await??;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Text of a stranger's on one line, and not too long.
pub(crate) fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// A day and a time of it, in UTC.
pub(crate) fn utc(millis: i64, format: &str) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime(format).to_string(),
        Err(_) => millis.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_have_the_decimals_of_their_currency() {
        let usd = |micros| decimal(micros, Currency::USD);
        assert_eq!([usd(0), usd(5_000_000), usd(-12_300)], ["0.00", "5.00", "-0.0123"]);
        assert_eq!(usd(i128::from(i64::MAX) * 1_000_000), "9223372036854775807.00");
        let jpy = "jpy".parse().unwrap();
        assert_eq!([decimal(7_000_000, jpy), decimal(7_000_001, jpy)], ["7", "7.000001"]);
    }

    #[test]
    fn the_points_of_amounts_stand_below_each_other() {
        let mut amounts = ["1.5", "10.0001", "7"].map(str::to_owned);
        align_points(&mut amounts);
        let rows = amounts.map(|amount| vec![Cell::right(amount), Cell::left("usd")]);
        assert_eq!(table(&rows), " 1.5     usd\n10.0001  usd\n 7       usd\n");
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_and_never_invisible() {
        let unicode = |amount| bar(amount, 1_000_000, 40, false);
        assert_eq!((unicode(0), unicode(1)), (String::new(), "▏".to_owned()));
        assert_eq!(unicode(1_000_000).chars().count(), 40);
        assert_eq!(unicode(500_000).chars().count(), 20);
        let plain = |amount| bar(amount, 100, 10, true);
        assert_eq!([plain(0), plain(1), plain(50), plain(100)], ["", "#", "#####", "##########"]);
        assert_eq!(bar(i128::MAX, i128::MAX, 3, true).len(), 3);
        assert_eq!([bar(5, 0, 10, true), bar(5, 5, 0, false)], ["", ""]);
    }
}
