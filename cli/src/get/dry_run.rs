//! `farebox get --dry-run`: the offer, and what the policy says to it.

use std::process::ExitCode;

use farebox_client::{Agent, MaxPrice, Preview, PreviewError, Proposal};
use farebox_policy::Decision;
use reqwest::Request;
use serde::Serialize;

use super::{Options, builder, ending};
use crate::Fault;
use crate::settings::Home;
use crate::terminal::{self, BAD, CAREFUL, GOOD, HEADING, tame};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    preview: &'a Preview,
    exit: u8,
}

pub(super) async fn run(
    home: &Home,
    agent: &Agent,
    has_policy: bool,
    request: Request,
    options: &Options,
) -> Result<ExitCode, Fault> {
    let max = options.max_price.map(MaxPrice);
    let origin = request.url().origin().ascii_serialization();
    let preview = match agent.preview(builder(), request, max).await {
        Err(PreviewError::Http(error)) if error.is_middleware() => {
            anstream::eprintln!("farebox: {}", tame(&error.to_string()));
            return Ok(ExitCode::from(ending::REFUSED));
        }
        Err(PreviewError::Http(error)) => {
            return Err(format!("{origin} was not reached: {}", tame(&error.to_string())).into());
        }
        preview => preview?,
    };
    let exit = exit(&preview);
    if options.json {
        terminal::print_json(&Report { preview: &preview, exit })?;
    } else {
        terminal::print(&text(&preview))?;
    }
    if !has_policy && let Some(proposal) = preview.proposals.first() {
        let (price, top_up) = (proposal.price, proposal.min_top_up.unwrap_or(proposal.price));
        let host = origin.split_once("://").map_or(&*origin, |(_, host)| host);
        let start = ending::start(home, &origin, &[]);
        anstream::eprintln!("farebox: {start}{}", ending::minimal(host, price, top_up));
    }
    Ok(ExitCode::from(exit))
}

/// What the call itself would come to; the first offer that can be paid decides.
fn exit(preview: &Preview) -> u8 {
    let asks = |proposal: &&Proposal| {
        proposal.refused.is_none() && matches!(proposal.explanation.decision, Decision::Escalate(_))
    };
    match &preview.proposals[..] {
        [] => 0,
        proposals if proposals.iter().any(Proposal::is_allowed) => 0,
        proposals if proposals.iter().any(|proposal| asks(&proposal)) => ending::ASKED,
        _ => ending::REFUSED,
    }
}

fn text(preview: &Preview) -> String {
    let route = tame(&preview.route);
    let mut text = format!("{HEADING}{route} at {}{HEADING:#}\n", tame(&preview.origin));
    if preview.proposals.is_empty() {
        let status = preview.status.unwrap_or_default();
        text.push_str(&format!("It asks for no payment: the answer was {status}.\n"));
        return text;
    }
    if preview.status.is_none() {
        text.push_str("It was not sent, since it may change something; this is its last price.\n");
    }
    match (preview.credential, &preview.credit[..]) {
        (false, _) => text.push_str("There is no credit at this server.\n"),
        (true, []) => text.push_str("There may be credit at this server.\n"),
        (true, credit) => {
            let credit: Vec<_> = credit.iter().map(ToString::to_string).collect();
            text.push_str(&format!("Credit, when last heard of: {}\n", credit.join(", ")));
        }
    }
    if let Some(amount) = preview.unresolved {
        text.push_str(&format!(
            "{CAREFUL}A payment of {amount} is open there{CAREFUL:#}: it would be gone on with.\n"
        ));
    }
    for proposal in &preview.proposals {
        text.push_str(&format!("\n{}\n", offer(proposal)));
    }
    text.push_str("\nNothing was paid.\n");
    text
}

fn offer(proposal: &Proposal) -> String {
    let explained = proposal.explanation.to_string();
    // The last line is the decision.
    let (rules, decision) = explained.rsplit_once('\n').unwrap_or(("", &explained));
    let (style, decision) = match (&proposal.refused, &proposal.explanation.decision) {
        (Some(reason), _) => (BAD, format!("refused: {reason}")),
        (None, Decision::Allow) => (GOOD, decision.to_owned()),
        (None, Decision::Escalate(_)) => (CAREFUL, decision.to_owned()),
        (None, Decision::Refuse(_)) => (BAD, decision.to_owned()),
    };
    let rules: Vec<_> = rules.lines().map(tame).collect();
    format!("{}\n{style}{}{style:#}", rules.join("\n"), tame(&decision))
}
