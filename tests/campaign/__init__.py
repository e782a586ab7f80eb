"""Good, doubtful and bad input for every command, and how each of them takes it."""
