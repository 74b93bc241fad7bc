"""What a run is for: representation, depth and ego-motion, optical flow."""
