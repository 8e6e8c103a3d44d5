"""Dock widgets, one per module. They show and change the session, and do not import each other."""
