"""What a sweep file and its command line say, frozen into trials."""
