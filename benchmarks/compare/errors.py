"""Why a peer is left out."""

from streamlib.errors import StreamsError


class PeerMissingError(StreamsError):
    """A peer cannot be had on this machine; the message says what is missing."""
