"""A delivery from both sides: what the sender announces, what the receiver finds landed."""
