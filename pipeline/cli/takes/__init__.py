"""The commands that choose among takes: pick, review, reel."""
