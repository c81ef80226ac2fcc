"""What every other room speaks of: errors, geometry, manifests, runs, metrics, statistics."""
