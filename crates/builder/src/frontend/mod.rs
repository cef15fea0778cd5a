//! What turns a description of a build into a graph. One so far: Dockerfiles.

pub mod dockerfile;
