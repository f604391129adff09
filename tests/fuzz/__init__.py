"""Fuzzers: of the parsers, guided by coverage, and of joined sockets and engines, by seeds. `ci/fuzz` runs them."""
