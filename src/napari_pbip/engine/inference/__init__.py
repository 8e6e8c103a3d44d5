"""Jobs that run a trained network: on tiles, on slides, and on one place to explain it."""
