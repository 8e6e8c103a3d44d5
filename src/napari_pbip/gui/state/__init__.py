"""What a user is working on in one viewer: no widgets, signals only."""
