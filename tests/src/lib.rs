//! Whole-system tests. The programs of the README and of the documents are compiled here.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../docs/money-in.md")]
struct MoneyIn;

#[cfg(doctest)]
#[doc = include_str!("../../docs/agent.md")]
struct RunningAgents;

#[cfg(doctest)]
#[doc = include_str!("../../docs/abuse.md")]
struct Abuse;
