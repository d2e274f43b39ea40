"""The dashboard: pages of the planner's snapshot, rendered here, live by server-sent events."""
