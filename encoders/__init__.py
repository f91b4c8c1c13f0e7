"""Encoders that place text, sound and pictures in one space of unit vectors."""

from encoders.base import Encoder, EncoderError
from encoders.registry import get, load

__all__ = ["Encoder", "EncoderError", "get", "load"]
