"""Runs on clusters: Ray's Jobs API, Kubernetes, and what nodes do before they are stopped."""
