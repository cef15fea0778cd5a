//! Black-box tests of the built programs, a file per tool. Each test is alone in namespaces of its own: see the harness.
mod acceptance;
mod bad_input;
mod builder;
mod contract;
mod engine;
mod faults;
mod harness;
mod network;
mod runtime;
