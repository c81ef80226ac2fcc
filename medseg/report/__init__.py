"""Run directories and score files to one self-contained HTML page."""
