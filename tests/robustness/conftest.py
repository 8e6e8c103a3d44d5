"""Tests that break things on purpose: damaged files, killed processes, full disks."""
