"""edgeopt: from a trained PyTorch model to gated edge artefacts, with the evidence."""

__version__ = "0.1.0"
