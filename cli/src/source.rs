//! Where a ledger is looked after: through a running server, or in its store.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use farebox_ledger::book::FreezeReason;
use farebox_ledger::statement::{self, Cursor, Page};
use farebox_ledger::{Book, Command, FirstRecord, Ledger, OpenError, Outcome, Store as _};
use farebox_protocol::PayerId;

use crate::Fault;
use crate::server::Server;
use crate::sheet::Sheet;
use crate::terminal::DIM;

/// The file that a server makes if nothing else is said.
const DEFAULT_FILE: &str = "farebox.redb";

#[derive(clap::Args)]
#[command(next_help_heading = "Where the ledger is")]
pub(crate) struct Place {
    /// The admin routes of a running server, such as http://127.0.0.1:4029 [env:
    /// FAREBOX_ADMIN_URL]
    #[arg(long, conflicts_with = "ledger")]
    url: Option<String>,
    /// The token of the admin routes; others on the machine can read it here, so rather use the
    /// variable [env: FAREBOX_ADMIN_TOKEN]
    #[arg(long, conflicts_with = "ledger")]
    token: Option<String>,
    /// The ledger itself: `embedded:PATH` while no server has it open, or a `redis` URL [env:
    /// FAREBOX_LEDGER] [default: embedded:farebox.redb, if it is there]
    #[arg(long, value_name = "LEDGER")]
    ledger: Option<String>,
}

/// A ledger, through whatever leads to it.
pub(crate) enum Source {
    /// A running server's admin routes.
    Server(Server),
    /// The store itself.
    Store { ledger: Ledger, first: FirstRecord },
}

/// A variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a place comes to.
pub(crate) enum At {
    /// A running server's admin routes.
    Server(Server),
    /// The ledger of this URL.
    Ledger(String),
}

impl Place {
    pub(crate) async fn open(self) -> Result<Source, Fault> {
        match self.find()? {
            At::Server(server) => Ok(Source::Server(server)),
            At::Ledger(url) => Source::store(&url).await,
        }
    }

    /// Where it is. What the command line says goes before what the environment says.
    pub(crate) fn find(self) -> Result<At, Fault> {
        let Place { url, token, ledger } = self;
        let (url, ledger) = match (url, ledger) {
            (None, None) => (variable("FAREBOX_ADMIN_URL"), variable("FAREBOX_LEDGER")),
            given => given,
        };
        match (url, ledger) {
            (Some(_), Some(_)) => {
                Err("FAREBOX_ADMIN_URL and FAREBOX_LEDGER are both set: say --url or --ledger"
                    .into())
            }
            (Some(url), None) => {
                let token = token.or_else(|| variable("FAREBOX_ADMIN_TOKEN"));
                let token = token.ok_or("set FAREBOX_ADMIN_TOKEN to the server's admin token")?;
                Ok(At::Server(Server::new(&url, &token)?))
            }
            (None, Some(ledger)) => Ok(At::Ledger(ledger)),
            (None, None) if token.is_some() => {
                Err("a token belongs to a server: say which with --url".into())
            }
            (None, None) if Path::new(DEFAULT_FILE).exists() => {
                Ok(At::Ledger(format!("embedded:{DEFAULT_FILE}")))
            }
            (None, None) => Err("say where the ledger is: --url of a running server's admin \
                                 routes, or --ledger"
                .into()),
        }
    }
}

impl Source {
    /// Opens the ledger of this URL; it must exist.
    pub(crate) async fn store(url: &str) -> Result<Source, Fault> {
        refuse_memory(url)?;
        match patiently(Ledger::open_existing(url)).await {
            Ok((ledger, first)) => Ok(Source::Store { ledger, first }),
            Err(OpenError::Locked(path)) => Err(format!(
                "the ledger {path} is open in another process: ask that server with --url and \
                 its admin token, or stop it"
            )
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn sheet(&self, payer: PayerId) -> Result<Sheet, Fault> {
        match self {
            Source::Server(server) => server.sheet(payer).await,
            Source::Store { ledger, .. } => Ok(Sheet::of(payer, &known(ledger, payer).await?)),
        }
    }

    /// One page of a statement. It may have fewer lines than `limit` though more follow.
    pub(crate) async fn statement(
        &self,
        payer: PayerId,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Fault> {
        match self {
            Source::Server(server) => server.statement(payer, from, limit).await,
            Source::Store { ledger, .. } => {
                Ok(statement::page(&known(ledger, payer).await?, from, limit))
            }
        }
    }

    /// Adds a reason, or takes it away; the reasons from then on.
    pub(crate) async fn freeze(
        &self,
        payer: PayerId,
        reason: FreezeReason,
        freeze: bool,
    ) -> Result<Vec<String>, Fault> {
        let ledger = match self {
            Source::Server(server) => return server.freeze(payer, &reason, freeze).await,
            Source::Store { ledger, .. } => ledger,
        };
        known(ledger, payer).await?;
        let command = match freeze {
            true => Command::Freeze { reason },
            false => Command::Unfreeze { reason },
        };
        if ledger.apply(&payer, &command).await?.outcome == Outcome::TooMany {
            return Err("the payer is frozen for as many reasons as a book holds: unfreeze one \
                        first, or leave it so"
                .into());
        }
        let head = ledger.load(&payer).await?;
        Ok(head.frozen.iter().map(ToString::to_string).collect())
    }

    /// Revokes one credential, or all; the generation from then on.
    pub(crate) async fn revoke(&self, payer: PayerId, number: Option<u16>) -> Result<u32, Fault> {
        match self {
            Source::Server(server) => server.revoke(payer, number).await,
            Source::Store { ledger, .. } => {
                known(ledger, payer).await?;
                let command = match number {
                    Some(number) => Command::RevokeCredential { number },
                    None => Command::RevokeCredentials,
                };
                match ledger.apply(&payer, &command).await?.outcome {
                    Outcome::Revoked { generation } => Ok(generation),
                    other => Err(format!("the credentials were not revoked: {other:?}").into()),
                }
            }
        }
    }

    /// All books, in the order of their payers.
    pub(crate) async fn books(&self) -> Result<Books<'_>, Fault> {
        let mut books =
            Books { source: self, ahead: VecDeque::new(), rest: Rest::End, first: None, payers: 0 };
        match self {
            Source::Server(_) => {
                books.rest = Rest::After(None);
                books.turn_page().await?;
            }
            Source::Store { ledger, first } => {
                let mut payers = ledger.payers().await?;
                payers.sort_unstable();
                books.payers = payers.len();
                books.first = Some(first.clone());
                books.rest = Rest::Payers(payers.into_iter());
            }
        }
        Ok(books)
    }
}

/// Waits for `opened`, and says so on a terminal: a file that a server has open is waited for.
pub(crate) async fn patiently<T>(opened: impl Future<Output = T>) -> T {
    let mut opened = pin!(opened);
    if let Ok(opened) = tokio::time::timeout(Duration::from_secs(1), opened.as_mut()).await {
        return opened;
    }
    if io::stderr().is_terminal() {
        anstream::eprintln!("{DIM}Waiting for the ledger; a server may have it open.{DIM:#}");
    }
    opened.await
}

/// The book of a payer who has one.
async fn known(ledger: &Ledger, payer: PayerId) -> Result<Book, Fault> {
    let book = ledger.book(&payer).await?;
    if book.head.seq == 0 {
        return Err(unknown(payer, "in this ledger"));
    }
    Ok(book)
}

pub(crate) fn unknown(payer: PayerId, place: &str) -> Fault {
    format!("there is no payer {payer} {place}: `farebox account list` names them").into()
}

/// Books in memory are gone with their process, so there is nothing to look after.
pub(crate) fn refuse_memory(url: &str) -> Result<(), Fault> {
    if url == "memory:" {
        return Err(
            "a ledger in memory ends with its process: use embedded:PATH, a redis URL, or \
                    --url of a running server"
                .into(),
        );
    }
    Ok(())
}

/// All books of a source, one after the other.
pub(crate) struct Books<'a> {
    source: &'a Source,
    /// Books of the page that was read last.
    ahead: VecDeque<(PayerId, Book)>,
    rest: Rest,
    first: Option<FirstRecord>,
    payers: usize,
}

/// What is yet to be read.
enum Rest {
    /// Of a server: pages, of which the next begins after this payer.
    After(Option<PayerId>),
    /// Of a store: the books of these payers.
    Payers(std::vec::IntoIter<PayerId>),
    /// Nothing.
    End,
}

impl Books<'_> {
    /// What the ledger was made for.
    pub(crate) fn first(&self) -> Result<&FirstRecord, Fault> {
        self.first.as_ref().ok_or_else(|| {
            "the server's ledger is a store of somebody else's: back it up as that is done".into()
        })
    }

    /// How many books there are, or were when this began.
    pub(crate) fn payers(&self) -> usize {
        self.payers
    }

    pub(crate) async fn next(&mut self) -> Result<Option<(PayerId, Book)>, Fault> {
        loop {
            if let Some(book) = self.ahead.pop_front() {
                return Ok(Some(book));
            }
            match (&mut self.rest, self.source) {
                (Rest::Payers(payers), Source::Store { ledger, .. }) => {
                    let Some(payer) = payers.next() else { return Ok(None) };
                    let book = ledger.book(&payer).await;
                    let book =
                        book.map_err(|error| format!("the book of payer {payer}: {error}"))?;
                    return Ok(Some((payer, book)));
                }
                (Rest::After(_), _) => self.turn_page().await?,
                _ => return Ok(None),
            }
        }
    }

    async fn turn_page(&mut self) -> Result<(), Fault> {
        let (Source::Server(server), Rest::After(after)) = (self.source, &self.rest) else {
            return Ok(());
        };
        let page = server.books(*after).await?;
        if page.next.is_some() && page.next <= *after {
            return Err("the server's books do not end: update it or farebox".into());
        }
        self.ahead = page.books.into_iter().map(|row| (row.payer, row.book)).collect();
        self.rest = page.next.map_or(Rest::End, |next| Rest::After(Some(next)));
        self.payers = self.payers.max(page.payers);
        self.first = self.first.take().or(page.first);
        Ok(())
    }
}
