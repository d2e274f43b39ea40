"""What operators touch: REST and the command line."""
