"""Pure measures: features, maps or poses in, named numbers out."""
