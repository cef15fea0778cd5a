//! What people see: docker's columns, words and documents, made from the protocols' messages. Pure but for printing.

pub mod container;
pub mod document;
pub mod event;
pub mod image;
pub mod listing;
pub mod port;
pub mod progress;
pub mod stats;
