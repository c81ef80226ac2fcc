"""From files to patches: transforms, cache, data module, phantoms."""
