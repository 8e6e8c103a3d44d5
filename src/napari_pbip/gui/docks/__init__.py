"""Dock widgets, one module each. They show and change the session, and do not know each other."""
