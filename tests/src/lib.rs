//! Whole-system tests. The programs of the README are compiled here.
#![doc = include_str!("../../README.md")]
