"""The Lightning module, its command line and callbacks."""
