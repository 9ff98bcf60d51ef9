"""A batch on disk: where it lives, whose folder it is, and its ledger, opened for one run at a time."""
