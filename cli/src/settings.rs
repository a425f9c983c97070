//! Where an agent's settings and state are on this machine, and what they say.
//!
//! Settings are in `farebox/` of the platform's folder for configuration (`~/.config`): the policy
//! in `policy.toml`, the rest in `settings.toml`. State is in `farebox/` of its folder for state
//! (`~/.local/state`). `FAREBOX_CONFIG_DIR` and `FAREBOX_STATE_DIR` name other folders.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use farebox_client::{
    Agent, Budget, Card, Guard, Money, PaymentError, PaymentMethodId, PaymentSource, Policy,
    StoredMethods, Terminal, TokenizedCard, TopUp, Webhook,
};
use serde::Deserialize;

use crate::Fault;
use crate::source::variable;

/// The most that is read of a file of settings.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Whoever may not read a file that can hold a way to pay.
const OTHERS: u32 = 0o077;
/// Whoever may not change what is paid.
const OTHERS_WRITE: u32 = 0o022;

/// The two folders.
pub(crate) struct Home {
    config: PathBuf,
    state: PathBuf,
}

/// `settings.toml`. What it does not say is as if it were not there.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The variable that holds the card: `FAREBOX_CARD`, if nothing is said.
    card_env: Option<String>,
    /// PaymentMethods to pay with instead of the card, by publishable key.
    methods: BTreeMap<String, PaymentMethodId>,
    /// Stripe's address; the variable `STRIPE_API_BASE` goes before it.
    tokenizer: Option<String>,
    approver: Option<AskWhom>,
    /// Keeps requests out of private networks.
    guard: bool,
    /// Addresses, networks and names that the guard lets through.
    guard_allow: Vec<String>,
    budget: Option<Where>,
    /// Tops up when less than this would be left.
    keep_credit: Option<Money>,
}

/// Who is asked where the policy wants a human to decide. If nothing is said: the terminal, if
/// there is one.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AskWhom {
    Nobody,
    Terminal,
    /// A service as `spec/approvals.md` says.
    Webhook {
        url: String,
        /// The variable that holds its token.
        token_env: Option<String>,
    },
}

/// Where the budget is. If nothing is said: beside the state.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Where {
    File(PathBuf),
    Redis { url: String, name: String },
}

/// An agent as its owner set it up.
pub(crate) struct Ready {
    pub(crate) agent: Agent,
    /// `None`: the owner has not said what may be paid, so nothing may.
    pub(crate) policy: Option<Policy>,
    /// Questions are put on the terminal.
    pub(crate) asks_here: bool,
}

impl Home {
    pub(crate) fn find() -> Result<Home, Fault> {
        let base = |name: &str, of: fn(&etcetera::base_strategy::Xdg) -> Option<PathBuf>| {
            if let Some(folder) = variable(name) {
                return Ok(PathBuf::from(folder));
            }
            let base = etcetera::choose_base_strategy().ok().and_then(|base| of(&base));
            base.map(|base| base.join("farebox")).ok_or_else(|| {
                Fault::from(format!("there is no home directory: set {name} to a folder"))
            })
        };
        Ok(Home {
            config: base("FAREBOX_CONFIG_DIR", |base| Some(base.config_dir()))?,
            state: base("FAREBOX_STATE_DIR", |base| base.state_dir())?,
        })
    }

    pub(crate) fn policy_file(&self) -> PathBuf {
        self.config.join("policy.toml")
    }

    fn policy(&self) -> Result<Option<Policy>, Fault> {
        let path = self.policy_file();
        let Some(text) = read(&path, OTHERS_WRITE, "can be changed by others: `chmod go-w")? else {
            return Ok(None);
        };
        let policy = Policy::from_toml(&text);
        Ok(Some(policy.map_err(|error| format!("{}: {error}", path.display()))?))
    }

    fn settings(&self) -> Result<Settings, Fault> {
        let path = self.config.join("settings.toml");
        let Some(text) = read(&path, OTHERS, "can be read by others: `chmod 600")? else {
            return Ok(Settings::default());
        };
        toml::from_str(&text).map_err(|error| {
            let before = text.as_bytes().iter().take(error.span().map_or(0, |span| span.start));
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            // Only names are repeated: what stands behind them may be a way to pay.
            let message = Some(error.message()).filter(|text| text.starts_with("unknown field"));
            let message = message.unwrap_or("this cannot be read");
            format!("{}: line {line}: {message}", path.display()).into()
        })
    }

    /// The agent, for looking at what it keeps: it has no card, asks nobody and pays nothing.
    pub(crate) async fn looking(&self) -> Result<Ready, Fault> {
        let (policy, settings) = (self.policy()?, self.settings()?);
        let agent = self.agent(policy.as_ref(), &settings).await?;
        Ok(Ready { agent, policy, asks_here: false })
    }

    /// The agent, for paying.
    pub(crate) async fn paying(&self) -> Result<Ready, Fault> {
        let (policy, settings) = (self.policy()?, self.settings()?);
        let mut agent = self.agent(policy.as_ref(), &settings).await?;
        if let Some(mark) = settings.keep_credit {
            agent = agent.keep_credit(mark);
        }
        if settings.guard || !settings.guard_allow.is_empty() {
            let mut allowed = settings.guard_allow.iter();
            let public = Guard::public_only();
            let guard = allowed.try_fold(public, |guard, entry| guard.allow(entry))?;
            agent = agent.guard(guard);
        }
        let asks_here = match &settings.approver {
            None => io::stderr().is_terminal(),
            Some(whom) => matches!(whom, AskWhom::Terminal),
        };
        if asks_here {
            agent = agent.approver(Terminal::new());
        }
        if let Some(AskWhom::Webhook { url, token_env }) = &settings.approver {
            agent = agent.approver(webhook(url, token_env.as_deref())?);
        }
        if let Some(means) = Means::of(settings)? {
            agent = agent.pay_from(means);
        }
        Ok(Ready { agent, policy, asks_here })
    }

    async fn agent(&self, policy: Option<&Policy>, settings: &Settings) -> Result<Agent, Fault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.state);
        made.map_err(|error| format!("{} cannot be made: {error}", self.state.display()))?;
        let agent = Agent::new(policy.cloned().unwrap_or_default());
        let agent = agent.state(self.state.join("agent.json"))?;
        Ok(match &settings.budget {
            None => agent,
            Some(Where::File(path)) => agent.budget(Budget::file(self.config.join(path))?),
            Some(Where::Redis { url, name }) => agent.budget(Budget::redis(url, name).await?),
        })
    }
}

/// The text of a file, unless there is none. Who has one of the bits of `not` must not be there.
fn read(path: &Path, not: u32, because: &str) -> Result<Option<String>, Fault> {
    let no = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(no)?,
    };
    if metadata.permissions().mode() & not != 0 {
        return Err(format!("{0} {because} {0}` mends it", path.display()).into());
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("{} is larger than 256 KiB", path.display()).into());
    }
    Ok(Some(fs::read_to_string(path).map_err(no)?))
}

fn webhook(url: &str, token_env: Option<&str>) -> Result<Webhook, Fault> {
    let webhook = Webhook::new(url)?;
    let Some(name) = token_env else { return Ok(webhook) };
    let token = variable(name).ok_or_else(|| {
        format!("{name} is not set: settings.toml says that it holds the approver's token")
    })?;
    Ok(webhook.token(token.into())?)
}

/// What the owner pays with: a stored PaymentMethod where there is one, the card elsewhere.
struct Means {
    stored: StoredMethods,
    card: Option<TokenizedCard>,
}

impl Means {
    fn of(settings: Settings) -> Result<Option<Means>, Fault> {
        let name = settings.card_env.as_deref().unwrap_or("FAREBOX_CARD");
        let card = variable(name).map(|_| Card::from_env(name)).transpose();
        let card = card.map_err(|error| format!("{name} does not hold a card: {error}"))?;
        let base = variable("STRIPE_API_BASE").or(settings.tokenizer);
        let card = match (card, base) {
            (Some(card), Some(base)) => Some(TokenizedCard::new(card)?.tokenizer(&base)?),
            (Some(card), None) => Some(TokenizedCard::new(card)?),
            (None, _) => None,
        };
        let none = card.is_none() && settings.methods.is_empty();
        let stored = settings.methods.into_iter();
        let stored = stored.fold(StoredMethods::new(), |all, (key, method)| all.with(key, method));
        Ok(if none { None } else { Some(Means { stored, card }) })
    }
}

impl PaymentSource for Means {
    async fn payment_method(&self, top_up: &TopUp) -> Result<PaymentMethodId, PaymentError> {
        match (self.stored.payment_method(top_up).await, &self.card) {
            (Err(PaymentError::NoPaymentMethod { .. }), Some(card)) => {
                card.payment_method(top_up).await
            }
            (stored, _) => stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_in_the_documentation_can_be_read() {
        let text = include_str!("../../docs/agent-cli.md");
        let blocks: Vec<_> = text.split("```toml\n").skip(1).collect();
        assert_eq!(blocks.len(), 2);
        for block in blocks {
            let written = block.split("```").next().unwrap();
            toml::from_str::<Settings>(written).unwrap();
        }
    }

    #[test]
    fn every_setting_can_be_written() {
        let settings: Settings = toml::from_str(
            r#"
            card_env = "MY_CARD"
            tokenizer = "http://127.0.0.1:4021"
            approver = { webhook = { url = "https://approve.example.com", token_env = "TOKEN" } }
            guard = true
            guard_allow = ["10.0.0.0/8"]
            budget = { redis = { url = "redis://127.0.0.1/", name = "team" } }
            keep_credit = "1.00 usd"
            [methods]
            pk_live_1 = "pm_1"
            "#,
        )
        .unwrap();
        assert!(settings.guard && settings.methods.len() == 1 && settings.keep_credit.is_some());
        for written in
            ["approver = \"terminal\"", "approver = \"nobody\"", "budget = { file = \"b.json\" }"]
        {
            assert!(toml::from_str::<Settings>(written).is_ok(), "{written}");
        }
        assert!(toml::from_str::<Settings>("gaurd = true").is_err());
    }
}
