"""Methods that learn a representation of images."""
