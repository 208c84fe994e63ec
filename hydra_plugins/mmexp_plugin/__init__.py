"""What Hydra finds by itself: where mmexp's configs are. The code is in mmexp."""
