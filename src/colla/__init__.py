"""colla keeps a group's services alive on the computers that its members own."""

__version__ = "0.1.0"
