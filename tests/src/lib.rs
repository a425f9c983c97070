//! Whole-system tests. The programs of the README are compiled here.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
