//! Black-box tests of the built programs, a file per tool. Each test is alone in namespaces of its own: see the harness.
mod acceptance;
mod bad_input;
mod contract;
mod harness;
mod supervisor;
