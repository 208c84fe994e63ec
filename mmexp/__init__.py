"""mmexp: ablations over multimodal LLMs. Importing the package imports nothing heavy."""

__version__ = "0.1.0"
