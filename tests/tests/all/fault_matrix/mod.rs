//! Everything that can go wrong between Farebox and Stripe, at every call of a purchase, and a
//! server that dies at every step of one: the table in `docs/fault-matrix.md`.
//!
//! `FAREBOX_WRITE=1` writes the document; otherwise it must say what happens. `FAREBOX_CELL=text`
//! runs the cells whose names hold the text.

mod asking;
mod cells;
mod client;
mod deaths;
mod fast;
mod judge;
mod run;
mod shop;
mod table;
mod words;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;

use cells::{CALLS, Cell, FAULTS, Span};
use deaths::{DEATHS, Home};
use run::Report;

use crate::support::whole_machine;

/// Cells that one thread runs at a time: most of what they do is wait.
const AT_A_TIME: usize = 24;

fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for span in [Span::Once, Span::UntilTheSweep] {
        for (_, kind) in FAULTS {
            cells.extend(CALLS.map(|call| Cell { call, kind, span }));
        }
    }
    cells
}

/// Runs all of them on as many threads as there are processors.
fn run_all(cells: &[Cell]) -> Vec<(Cell, Report)> {
    let next = AtomicUsize::new(0);
    let one_after_another = async || {
        let mut done = Vec::new();
        while let Some(cell) = cells.get(next.fetch_add(1, Ordering::SeqCst)) {
            done.push((*cell, run::run(*cell).await));
        }
        done
    };
    let thread = || fast::in_fast_time(join_all((0..AT_A_TIME).map(|_| one_after_another())));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
        let done = threads.into_iter().map(|thread| thread.join().unwrap());
        done.flatten().flatten().collect()
    })
}

#[tokio::test]
async fn whatever_goes_wrong_at_stripe_no_money_is_lost_or_taken_twice() {
    let _machine = whole_machine().await;
    let started = Instant::now();
    let only = std::env::var("FAREBOX_CELL").unwrap_or_default();
    let cells: Vec<Cell> =
        all_cells().into_iter().filter(|cell| cell.to_string().contains(&only)).collect();
    let reports = run_all(&cells);
    let mut red = 0;
    for (cell, report) in &reports {
        red += usize::from(!report.wrong.is_empty());
        for wrong in &report.wrong {
            println!("{cell}: {wrong}");
        }
    }
    println!("{} cells, {red} of them red; {:?}", reports.len(), started.elapsed());
    assert_eq!(red, 0, "of {} cells", reports.len());
    if only.is_empty() {
        table::keep("faults", &table::of_faults(&reports));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_server_dies_no_money_is_lost_or_taken_twice() {
    let _machine = whole_machine().await;
    let started = Instant::now();
    let (restarted, taken_over) =
        tokio::join!(deaths::run_all(Home::Embedded), deaths::run_all(Home::Redis));
    let mut red = 0;
    for (home, reports) in [(Home::Embedded, &restarted), (Home::Redis, &taken_over)] {
        for (death, (_, wrong)) in DEATHS.iter().zip(reports) {
            red += usize::from(!wrong.is_empty());
            for wrong in wrong {
                println!("{home:?}, {}: {wrong}", death.name);
            }
        }
    }
    let deaths = restarted.len() + taken_over.len();
    println!("{deaths} deaths, {red} of them red; {:?}", started.elapsed());
    assert_eq!(red, 0, "of {deaths} deaths");
    table::keep("deaths", &table::of_deaths(&restarted, &taken_over));
}
