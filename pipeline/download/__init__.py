"""From ready to done: the HTTP body, redirects, resuming, the checked file, and the pool of downloads."""
