"""One file per row of a table: its header says what is claimed, how, at what cost, and whether we have seen it."""
