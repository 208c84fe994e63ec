"""What Hydra finds by itself: the search path, the sweeper and the launchers. The code is in mmexp."""
