"""What every HTTP client of ours shares: proxies, the address guard, `Retry-After`. Knows no vendor."""
