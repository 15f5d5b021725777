"""The papers' published cost figures, and ours beside them."""
