"""Methods that learn depth and ego-motion."""
