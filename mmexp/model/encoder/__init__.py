"""Vision encoders: images in, one feature map per requested depth out."""
