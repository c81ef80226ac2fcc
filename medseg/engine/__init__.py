"""Runs any list of jobs; knows no medical word."""
