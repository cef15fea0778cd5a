//! Black-box tests of the built programs, a file per tool. Each test is alone in namespaces of its own: see the harness.
mod acceptance;
mod bad_input;
mod builder;
mod cli;
mod contract;
mod distribution;
mod engine;
mod faults;
mod harness;
mod network;
mod runtime;
mod runtime_crash;
mod runtime_seccomp;
mod runtime_criu;
mod supervisor;
mod volume;
