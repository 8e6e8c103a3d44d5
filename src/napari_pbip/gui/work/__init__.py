"""What the session holds: the work of a user, which outlives the docks that show it."""
