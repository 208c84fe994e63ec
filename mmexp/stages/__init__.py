"""Work as a graph of stages, each made once, finished by one rename and shared by everything that needs it."""
