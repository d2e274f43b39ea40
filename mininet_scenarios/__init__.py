"""Networks and traffic to run Tidegate on."""
