"""Benchmarks: netengine beside what a user would pick instead, in one run, taking turns. Run by `scripts/bench`."""
