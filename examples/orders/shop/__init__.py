"""Orders of a shop: which are paid, which are not, and what they bring in."""
