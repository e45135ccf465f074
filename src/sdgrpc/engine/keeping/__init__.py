"""Jobs that outlive their connection, kept for all front doors of one cluster: what is told of them."""
