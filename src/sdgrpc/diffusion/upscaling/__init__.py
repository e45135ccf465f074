"""Networks that enlarge pictures, and pictures cut into tiles for them."""
