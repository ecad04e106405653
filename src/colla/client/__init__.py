"""The client of the local API and the API's types."""

from colla.client.client import Client

__all__ = ["Client"]
