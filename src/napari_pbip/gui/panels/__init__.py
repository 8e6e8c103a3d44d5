"""Panels: parts of dock widgets that show and change the session."""
