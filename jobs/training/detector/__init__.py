"""The word detector: network, graph, training."""
