"""What a config is and costs, before anything is launched."""
