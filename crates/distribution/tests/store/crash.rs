//! What dead processes leave behind.
