//! Black-box tests of the built programs, a file per tool. Each test is alone in namespaces of its own: see the harness.
mod harness;
