"""External events: where they come from, what they do to the forecast, and what operators see of them."""
