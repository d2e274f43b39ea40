"""The loop: observe, group, forecast, allocate, publish."""
