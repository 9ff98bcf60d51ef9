"""From accepted to finished: when to poll a generation, the status request, and what an answer changes."""
