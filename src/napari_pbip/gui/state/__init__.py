"""The state of the user's work in one viewer, with signals and without widgets."""
