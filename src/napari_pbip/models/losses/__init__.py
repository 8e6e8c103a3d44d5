"""Losses, one term a function."""
