"""Pure measures: features, maps or poses in, named numbers out.

Arrays on the device are float32, poses on the host float64. Features must be finite and labels
integers.
"""
