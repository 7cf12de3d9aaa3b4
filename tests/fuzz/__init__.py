"""Property-based tests of everything that reads a file; docs/fuzzing.md says how to run them."""
