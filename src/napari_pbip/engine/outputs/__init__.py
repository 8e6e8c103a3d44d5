"""Jobs that turn stored scores into labels, areas, pictures and figures of merit; no network is needed."""
