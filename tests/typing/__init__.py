"""Nothing here runs: mypy checks that what is public has the types that callers rely on."""
