"""From pending to accepted: price, budget, concurrency limit, the create request, and its pool."""
