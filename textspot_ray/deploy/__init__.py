"""Where runs are sent: Ray's Jobs API, Kubernetes, and what nodes do when they must stop."""
