"""Films: what is planned, what is to be done next, and how a film looks."""
