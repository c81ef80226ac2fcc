"""A trained network to label maps, one case or a folder. Imports no Lightning."""
