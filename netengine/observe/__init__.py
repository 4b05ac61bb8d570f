"""Letting people see: what is built in the kernel, and why. Reads resources; changes nothing."""
