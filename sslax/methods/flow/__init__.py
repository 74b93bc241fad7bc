"""Methods that learn optical flow."""
