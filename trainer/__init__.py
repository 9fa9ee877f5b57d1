"""When a round starts, how a candidate is trained from the labels, and whether it may be served."""
