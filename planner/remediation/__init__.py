"""What is done about congestion and anomalies, why, and whether it helped."""
