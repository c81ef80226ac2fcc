"""The data set doctor."""
