"""Tests with damaged files, killed processes and full disks."""
