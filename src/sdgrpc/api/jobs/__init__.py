"""Jobs that outlive their connection: what happened to them, for whoever comes back."""
