"""Files of images, flow, cameras and text, read and written."""
