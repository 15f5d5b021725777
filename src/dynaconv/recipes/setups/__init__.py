"""The settings that the rows of one family share."""
