"""How the feature maps of several encoders become one or more streams."""
