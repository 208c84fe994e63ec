"""How an image becomes the views of an encoder."""
