"""`streamlib produce` and `streamlib consume`: a few records to a topic and from one, by hand or in a script."""
