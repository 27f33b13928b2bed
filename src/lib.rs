#![doc = include_str!("architecture.md")]
#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod demo;
pub mod handover;
pub mod plan;
pub mod proxy;
pub mod reload;
pub mod top;

pub mod lines;
pub mod live;
pub mod memory;

pub mod worker;

pub mod config;

pub mod topology;

pub mod admin;
pub mod downstream;
pub mod embedded;
pub mod traces;
pub mod upstream;

pub mod audit;
pub mod contain;
pub mod hub;
pub mod log;

pub mod encrypted;
pub mod scribe;

pub mod engine;

pub mod acl;
pub mod stages;

pub mod command;
pub mod error;
pub mod tls;

pub mod bucket;
pub mod chance;
pub mod glob;
pub mod metrics;
pub mod pace;
pub mod resp;
pub mod ring;
pub mod units;
