//! `farebox credentials`: what an agent keeps of the servers that it pays.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Subcommand;
use farebox_client::{Agent, Forgotten, Known, Money};
use farebox_protocol::{ClientId, Payment, header};
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::settings::Home;
use crate::terminal::{self, CAREFUL, Cell, DIM, GOOD, tame};

/// How long a provider may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most that is read of its answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How much is shown of a publishable key.
const KEY_END: usize = 4;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the servers that were paid, or asked for money.
    List(List),
    /// Revoke a further credential that was issued to an agent, at its provider.
    Revoke(Revoke),
    /// Forget a server; with its credential, the way to the credit there.
    Forget(Forget),
    /// Count a payment whose outcome nobody told as spent, so that its server can be paid again.
    WriteOff(Of),
    /// Take back what is counted for payments that a server says it did not charge, after a look at
    /// the card's statement.
    TakeBack(Of),
    /// Forget under which publishable key a server is paid, after its provider said that it
    /// changed.
    ForgetKey(Of),
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Show the credentials too. Whoever has one can spend the credit.
    #[arg(long)]
    show: bool,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "A payer's own credential is revoked by its provider only; its credit stays, \
    and its card leads to it again. What a payer revokes itself are the further credentials that \
    it had issued, one per agent."
)]
pub(crate) struct Revoke {
    /// The provider's account routes, such as `https://api.example.com/account`.
    account: Url,
    /// The credential's number; without it, those that stand are listed.
    number: Option<u16>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Forget {
    /// An address of the server.
    url: Url,
    /// Do not ask first. Needed where there is no terminal to ask on.
    #[arg(long)]
    yes: bool,
}

#[derive(clap::Args)]
pub(crate) struct Of {
    /// An address of the server.
    url: Url,
}

/// A server, as `list` shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    origin: String,
    /// What could be spent there when it was last heard of.
    credit: Vec<Money>,
    has_credential: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<ClientId>,
    /// The last characters of the publishable key.
    key_end: Option<String>,
    /// A payment whose outcome is not known.
    unresolved: Option<Money>,
    /// Payments that are counted although the server says that it took nothing.
    denied: usize,
}

pub(crate) async fn run(command: Command) -> Result<(), Fault> {
    let agent = Home::find()?.looking().await?.agent;
    match command {
        Command::List(options) => list(&agent, options).await,
        Command::Revoke(options) => revoke(&agent, options).await,
        Command::Forget(options) => forget(&agent, options).await,
        Command::WriteOff(Of { url }) => write_off(&agent, &url).await,
        Command::TakeBack(Of { url }) => take_back(&agent, &url).await,
        Command::ForgetKey(Of { url }) => {
            known(&agent, &url).await?;
            agent.forget_key(url.as_str()).await?;
            let origin = tame(&origin(&url));
            terminal::print(&format!(
                "The next publishable key that {origin} names is taken for its own.\n"
            ))
        }
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What is kept of the server at `url`, or that there is nothing.
async fn known(agent: &Agent, url: &Url) -> Result<Known, Fault> {
    let origin = origin(url);
    let known = agent.known().await?.into_iter().find(|known| known.origin == origin);
    known.ok_or_else(|| {
        format!("nothing is kept of {}: see `farebox credentials list`", tame(&origin)).into()
    })
}

async fn list(agent: &Agent, List { show, json }: List) -> Result<(), Fault> {
    let spending = agent.spending().await?.by_origin();
    let mut rows = Vec::new();
    for known in agent.known().await? {
        let credential = match show {
            true => agent.credential(&known.origin).await?,
            false => None,
        };
        let of = |row: &&farebox_client::Spent| row.origin.as_ref() == Some(&known.origin);
        let credit = spending.rows().iter().filter(of).filter_map(|row| row.remaining).collect();
        let key_end = known.publishable_key.map(|key| {
            let skipped = key.chars().count().saturating_sub(KEY_END);
            key.chars().skip(skipped).collect()
        });
        rows.push(Row {
            origin: known.origin,
            credit,
            has_credential: known.credential,
            credential,
            key_end,
            unresolved: known.unresolved,
            denied: known.denied,
        });
    }
    if json { terminal::print_json(&rows) } else { terminal::print(&text(&rows, show)) }
}

fn text(rows: &[Row], show: bool) -> String {
    if rows.is_empty() {
        return "No server was paid or asked for money yet.\n".to_owned();
    }
    let heads = ["server", "credit, last seen", "key", "open payment", "denied"].map(Cell::left);
    let mut head = heads.to_vec();
    if show {
        head.push(Cell::left("credential"));
    }
    let mut lines = vec![head.into_iter().map(|cell| cell.style(DIM)).collect::<Vec<_>>()];
    for row in rows {
        let credit: Vec<_> = row.credit.iter().map(ToString::to_string).collect();
        let credit = match (row.has_credential, &credit[..]) {
            (false, _) => "none".to_owned(),
            (true, []) => "not known".to_owned(),
            (true, credit) => credit.join(", "),
        };
        let key = row.key_end.as_ref().map_or_else(String::new, |end| format!("...{}", tame(end)));
        let open = row.unresolved.map_or_else(String::new, |amount| amount.to_string());
        let mut line = vec![
            Cell::left(tame(&row.origin)),
            Cell::left(credit).style(GOOD),
            Cell::left(key),
            Cell::left(open).style(CAREFUL),
            Cell::right(if row.denied > 0 { row.denied.to_string() } else { String::new() }),
        ];
        if show {
            let credential = row.credential.as_ref().map_or("", ClientId::as_str);
            line.push(Cell::left(tame(credential)));
        }
        lines.push(line);
    }
    terminal::table(&lines)
}

/// `GET credentials` of a provider's account routes: `spec/protocol.md` section 9.
#[derive(Serialize, Deserialize)]
struct Issued {
    credentials: Vec<IssuedOne>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IssuedOne {
    number: u16,
    label: String,
    /// Milliseconds since the Unix epoch.
    issued: i64,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

async fn revoke(agent: &Agent, options: Revoke) -> Result<(), Fault> {
    let Revoke { account, number, json } = options;
    let Some(number) = number else {
        let body = ask(agent, &account, Method::GET, "credentials").await?;
        let issued: Issued = serde_json::from_slice(&body)
            .map_err(|_| format!("{account} does not answer as account routes do"))?;
        return if json {
            terminal::print_json(&issued)
        } else {
            terminal::print(&listed(&issued))
        };
    };
    ask(agent, &account, Method::DELETE, &format!("credentials/{number}")).await?;
    match json {
        true => terminal::print_json(&serde_json::json!({ "revoked": number })),
        false => terminal::print(&format!("Credential {number} is revoked.\n")),
    }
}

fn listed(issued: &Issued) -> String {
    if issued.credentials.is_empty() {
        return "No further credential stands.\n".to_owned();
    }
    let heads = ["number", "label", "issued"];
    let mut rows = vec![heads.map(|head| Cell::left(head).style(DIM)).to_vec()];
    rows.extend(issued.credentials.iter().map(|one| {
        vec![
            Cell::right(one.number.to_string()),
            Cell::left(tame(&one.label)),
            Cell::left(terminal::utc(one.issued, "%Y-%m-%d")),
        ]
    }));
    terminal::table(&rows)
}

/// Asks a provider's account routes with the credential for its origin, which goes nowhere else.
async fn ask(agent: &Agent, account: &Url, method: Method, path: &str) -> Result<Vec<u8>, Fault> {
    let at = tame(account.as_str());
    let local = account.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        let address = host.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    });
    if account.scheme() != "https" && !(account.scheme() == "http" && local) {
        return Err(format!("the credential would cross the network in the clear: {at}").into());
    }
    let client_id = agent.credential(account.as_str()).await?;
    let client_id = client_id.ok_or_else(|| format!("there is no credential for {at}"))?;
    let payment = Payment { client_id: Some(client_id), ..Payment::default() };
    let base = Url::parse(&format!("{}/", account.as_str().trim_end_matches('/')))?;
    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
    let http = if local { http.no_proxy() } else { http }.build()?;
    let request = http.request(method, base.join(path)?).header(header::PAYMENT, payment.encode());
    let gone = |error: reqwest::Error| format!("{at} did not answer: {}", error.without_url());
    let mut response = request.send().await.map_err(gone)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(gone)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(format!("{at} answers too much").into());
        }
    }
    if matches!(status, StatusCode::OK | StatusCode::NO_CONTENT) {
        return Ok(body);
    }
    let error = serde_json::from_slice::<Refused>(&body).map(|refused| tame(&refused.error));
    let error = error.unwrap_or_else(|_| "are these its account routes?".to_owned());
    Err(format!("{at} refuses ({}): {error}", status.as_u16()).into())
}

async fn forget(agent: &Agent, Forget { url, yes }: Forget) -> Result<(), Fault> {
    let known = known(agent, &url).await?;
    let origin = tame(&known.origin);
    if !yes {
        if !io::stdin().is_terminal() {
            return Err("there is no terminal to ask on: say --yes".into());
        }
        if known.credential {
            anstream::eprintln!(
                "The credit at {origin} can then be reached only with the card that paid it."
            );
        }
        if !terminal::yes(&format!("Forget {origin}?")).await? {
            return Err("nothing was forgotten".into());
        }
    }
    match agent.forget(url.as_str()).await? {
        Forgotten::Forgotten => terminal::print(&format!("{origin} is forgotten.\n")),
        Forgotten::Unknown => Err(format!("nothing is kept of {origin}").into()),
        Forgotten::Open => Err(format!(
            "a payment at {origin} is open: see what became of it with `farebox get`, or write it \
             off first"
        )
        .into()),
    }
}

async fn take_back(agent: &Agent, url: &Url) -> Result<(), Fault> {
    known(agent, url).await?;
    let payments = agent.take_back(url.as_str()).await?;
    let origin = tame(&origin(url));
    terminal::print(&match payments {
        0 => format!("{origin} has denied no payment that is counted.\n"),
        n => format!("The budget does not count {n} of the payments to {origin} any more.\n"),
    })
}

async fn write_off(agent: &Agent, url: &Url) -> Result<(), Fault> {
    let known = known(agent, url).await?;
    let origin = tame(&known.origin);
    match agent.write_off(url.as_str()).await? {
        Some(amount) => terminal::print(&format!(
            "{amount} at {origin} is counted as spent. If the card was not charged, that is too \
             much; if it was, the credit is there.\n"
        )),
        None if known.unresolved.is_some() => {
            Err(format!("another process is paying {origin} at this moment: try again").into())
        }
        None => Err(format!("no payment at {origin} is open").into()),
    }
}
