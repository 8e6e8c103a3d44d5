"""Jobs that compute labels, areas, pictures and metrics from stored scores, without a network."""
